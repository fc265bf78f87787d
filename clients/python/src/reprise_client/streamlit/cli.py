"""`reprise-streamlit`: Streamlit's command line, with the shared storage installed before it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_HELP = """\
Usage: reprise-streamlit run APP.py [Streamlit's options] [-- the app's arguments]
       reprise-streamlit COMMAND    any other command of streamlit, such as `cache clear`

Runs Streamlit so that st.cache_data(persist="disk") keeps its values in Reprise, where all
replicas of the app share them and a restart does not lose them. The app itself need not change.

Everything after `reprise-streamlit` is passed to Streamlit; see `streamlit run --help` for its
options. The storage is configured by the environment:

  REPRISE_URL                   where the service is (default http://127.0.0.1:8080)
  REPRISE_TOKEN                 its token, if it asks for one
  REPRISE_PICKLE_SECRET         16 or more bytes, the same in all replicas: cached values are
                                signed with it, and values that are not are not read
  REPRISE_TRUST_SERVICE=1       do without a secret, if only this app can write to the service
  REPRISE_STREAMLIT_NAMESPACE   the cache namespace (default streamlit): one for each app

Options:
  --help       this text
  --version    the versions of this package and of Streamlit
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the result is the exit status, if Streamlit does not exit by itself."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("--help", "-h", "help"):
        print(_HELP, end="", file=sys.stdout if given else sys.stderr)
        return 0 if given else 2
    from .versions import UnsupportedStreamlit, layout

    try:
        layout()
        if given[0] == "--version":
            import streamlit

            from .._version import __version__

            print(f"reprise-client {__version__}, streamlit {streamlit.__version__}")
            return 0
        if given[0] in ("run", "hello") and "--help" not in given[: _own(given)]:
            from .installation import install

            install()
    except (ModuleNotFoundError, UnsupportedStreamlit, ValueError) as error:
        print(f"reprise-streamlit: {error}", file=sys.stderr)
        return 1
    from streamlit.web import cli

    if given[:2] == ["cache", "clear"]:
        return _clear()
    cli.main(args=given, prog_name="reprise-streamlit")
    return 0


def _own(given: list[str]) -> int:
    """How many of the arguments are Streamlit's; those after `--` are the app's."""
    return given.index("--") if "--" in given else len(given)


def _clear() -> int:
    """Clears what the replicas share, and Streamlit's own cache as its command does."""
    from streamlit.web import cli

    from ..client import Client
    from ..errors import RepriseError
    from .installation import default_namespace

    namespace = default_namespace()
    client = Client()
    try:
        removed = client.clear_entries(namespace)["removed"]
    except RepriseError as error:
        print(f"reprise-streamlit: the namespace {namespace} at {client.url} was not cleared: "
              f"{error}", file=sys.stderr)
        return 1
    print(f"Removed {removed} cached values from the namespace {namespace} at {client.url}.")
    cli.main(args=["cache", "clear"], prog_name="reprise-streamlit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
