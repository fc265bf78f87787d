# What upstream.py adds to the end of Flask-Caching's conftest.py: the app of all its tests has
# our backend.


@pytest.fixture
def app(request):
    import uuid

    app = flask.Flask(request.module.__name__, template_folder=os.path.dirname(__file__))
    app.testing = True
    app.config["CACHE_TYPE"] = "reprise_client.adapters.flask_caching.RepriseCache"
    app.config["CACHE_REPRISE_URL"] = os.environ["REPRISE_SUITE_URL"]
    app.config["CACHE_REPRISE_PICKLE_SECRET"] = "a secret for upstream tests"
    app.config["CACHE_REPRISE_NAMESPACE"] = f"flask-{uuid.uuid4().hex}"
    app.config["CACHE_REPRISE_STRICT"] = True
    app.config["CACHE_REPRISE_CALL_TIMEOUT"] = 30
    return app


@pytest.fixture
def clock(app):
    """Time that passes at once: every entry of the app's namespace gets so much less of it."""
    from reprise_client import Client

    client = Client(app.config["CACHE_REPRISE_URL"], timeout=30)
    namespace = app.config["CACHE_REPRISE_NAMESPACE"]

    class Clock:
        def advance(self, seconds):
            for entry in list(client.items(client.list_entries, namespace)):
                left = entry["expires_in_seconds"]
                if left is None:
                    continue
                if left > seconds:
                    client.touch_entry(namespace, entry["key"], ttl_seconds=left - seconds)
                else:
                    client.delete_entry(namespace, entry["key"])

    return Clock()


@pytest.fixture
def redis_server():
    pytest.skip("a test of Flask-Caching's own backend for Redis")
