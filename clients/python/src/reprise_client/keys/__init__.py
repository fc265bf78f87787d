"""Cache keys for function calls: equal content gives an equal key, in every process.

A key has two sources. The function's part is its module, its qualified name and its code:
bytecode, constants and names, and the code of the functions of the same module that it uses,
directly or through each other. So an edit of the function, or of a function it calls in the same
file, makes new keys. The arguments' part is the content of every argument, by parameter name, after
defaults are applied, and the content of the variables that the function closes over.

What is not in a key: other global variables, code of other modules, file names, line numbers,
identities and addresses, and names in `ignore`. A global value that changes the result belongs in
an argument. Another Python version compiles to other bytecode, so it makes other keys. A name
that the code reads as an attribute (`table.load`) counts as a use of the module's function `load`.

`call.py` makes the keys. `content.py` encodes a value by the rule of its type; the rules are in
`standard.py`, `code.py` (functions) and `libraries.py`.
"""

from __future__ import annotations

from . import code as _code
from . import libraries as _libraries  # Registers its rules.
from .call import CallKey, KeyPart, call_key, digest
from .code import MAX_KEY_BYTES
from .content import MAX_DEPTH, MAX_RENDERING_CHARS, UnhashableArgument
from .standard import File

__all__ = [
    "MAX_DEPTH", "MAX_KEY_BYTES", "MAX_RENDERING_CHARS", "CallKey", "File", "KeyPart",
    "UnhashableArgument", "call_key", "digest",
]  # fmt: skip

# For memoized functions, which remember the keys of their calls.
_closure_of = _code.closure_of
_plan_of = _code.plan_of
_resolve_callable = _code.resolve_callable
