"""Idempotency-Key: what is sent again after a crash, or by racing clients, counts once."""

import http.client
import json
import random
import threading

from conftest import race

COUNTER = "/v1/cache/n/entries/count/increment"


def increment(server, key):
    """Status, header fields and JSON of the answer."""
    status, fields, body = server.request(
        "POST", COUNTER, {"ttl_seconds": None}, {"Idempotency-Key": key})
    return status, fields, json.loads(body)


def count(server):
    return json.loads(server.request("GET", "/v1/cache/n/entries/count")[2])


class Clients:
    """What clients have sent, and what they were answered."""

    def __init__(self, server):
        self.server, self.lock = server, threading.Lock()
        self.sent, self.answered, self.lost, self.wrong = set(), {}, set(), []

    @property
    def unanswered(self):
        return sorted(self.sent - self.answered.keys() - self.lost)

    def send(self, key):
        with self.lock:
            self.sent.add(key)
        status, _, answer = increment(self.server, key)
        with self.lock:
            if status == 200:
                self.answered[key] = answer["value"]
            elif answer["code"] == "idempotency_answer_lost":
                self.lost.add(key)
            else:
                self.wrong.append(answer)

    def work(self, keys, wanted, enough):
        """Sends requests until the server dies."""
        try:
            for key in keys:
                self.send(key)
                if len(self.answered) >= wanted or self.wrong:
                    enough.set()
        except (OSError, http.client.HTTPException):
            pass


def test_each_request_counts_once_however_often_the_server_is_killed(server):
    """Clients send increments until the server dies, and after its restart send again what got no answer."""
    numbers = random.Random(20261128)
    clients = Clients(server)
    for round in range(8):
        enough, repeated = threading.Event(), clients.unanswered
        wanted = len(clients.answered) + numbers.randrange(40, 200)
        threads = []
        for number in range(8):
            new = [f"{round}-{number}-{index}" for index in range(10_000)]
            threads.append(threading.Thread(target=clients.work, args=(repeated[number::8] + new, wanted, enough)))
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
    for key in clients.unanswered:
        clients.send(key)
    assert clients.wrong == [] and clients.unanswered == []
    # Each was carried out, and none twice: the sums are all different, and the last one is their number.
    answered = clients.answered
    assert len(set(answered.values())) == len(answered)
    assert count(server) == len(clients.sent)
    # Whatever was answered is answered again, after one more crash too.
    server.kill()
    server.start()
    for key in numbers.sample(sorted(answered), 100):
        status, fields, answer = increment(server, key)
        assert (status, answer) == (200, {"value": answered[key]})
        assert fields["Idempotency-Replayed"] == "true"
    for key in clients.lost:
        assert increment(server, key)[2]["code"] == "idempotency_answer_lost"
    assert count(server) == len(clients.sent)
    assert server.query("PRAGMA integrity_check") == ["ok"]
    assert server.query("PRAGMA foreign_key_check") == []


def test_of_racing_clients_one_is_served(server):
    for round in range(5):
        answers = race(32, lambda _, round=round: increment(server, f"round-{round}"))
        first = [answer for answer in answers if answer[0] == 200 and "Idempotency-Replayed" not in answer[1]]
        assert len(first) == 1
        for status, fields, answer in answers:
            if status == 200:
                assert answer == {"value": round + 1}
            else:
                assert status == 409 and answer["code"] == "idempotency_key_in_use" and fields["Retry-After"] == "1"
    assert count(server) == 5


def test_an_answer_is_not_readable_with_sql(server):
    assert increment(server, "k")[0] == 200
    for table in ("idempotency_marks", "idempotency_answers"):
        status, _, body = server.request("POST", "/v1/sql", {"query": f"SELECT * FROM {table}"})
        assert status == 422 and json.loads(body)["code"] == "sql_not_allowed"
