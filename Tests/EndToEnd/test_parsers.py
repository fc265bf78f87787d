"""The service's own parsers against those of Python's library, on generated input: docs/design/faults.md.

Two variables of the environment explore further than `make test`: REPRISE_PARSER_CASES and REPRISE_PARSER_SEED.
"""

import base64
import datetime
import json
import os
import random
import re
from urllib.parse import quote, unquote_to_bytes

import pytest

CASES = int(os.environ.get("REPRISE_PARSER_CASES", "400"))
SEED = int(os.environ.get("REPRISE_PARSER_SEED", "1"))
MAX_JSON_DEPTH = 128
MAX_KEY_BYTES = 512


class Wire:
    """One connection that stays open. A request is sent as it is written here."""

    def __init__(self, server):
        self.server = server
        self.connection = server.connect()

    def send(self, method, path, body=None, **headers):
        """Status, header fields, bytes."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        if body is not None:
            self.connection.putheader("Content-Length", str(len(body)))
        for name, value in names.items():
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status < 500, (method, path, body, headers, content)
        return answer.status, answer.headers, content


@pytest.fixture
def wire(server):
    return Wire(server)


def cases(name):
    """Random numbers, once for each case."""
    for number in range(CASES):
        yield random.Random(f"{SEED} {name} {number}")


def mutated(text, numbers):
    """Some bytes changed: replaced, removed, inserted, doubled."""
    data = bytearray(text)
    for _ in range(numbers.randint(1, 4)):
        at = numbers.randrange(len(data) + 1)
        choice = numbers.randrange(5)
        if choice == 0:
            data[at:at + 1] = numbers.randbytes(1)
        elif choice == 1:
            del data[at:at + numbers.randint(1, 4)]
        elif choice == 2:
            data[at:at] = numbers.choice([b"\\", b'"', b",", b"[", b"{", b"}", b"]", b"0", b"-", b".", b"e", b"\xff"])
        elif choice == 3:
            data[at:at] = data[at:at + 8]
        else:
            data[at:at] = numbers.choice(
                [b"\\ud83d", b"\\ude00", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b" ", b"\0"])
    return bytes(data)


class Refused(Exception):
    pass


def parsed(data):
    """The value of a JSON text by RFC 8259, with the service's own three rules: no name twice in an object, no unpaired
    surrogate, no more than 128 levels. A number is its text."""

    def members(pairs):
        if len({name for name, _ in pairs}) < len(pairs):
            raise Refused("a name twice")
        return dict(pairs)

    def constant(text):
        raise Refused(text)

    def number(text):
        return ("number", text)

    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=members, parse_constant=constant, parse_int=number, parse_float=number)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, Refused, RecursionError) as error:
        raise Refused(str(error)) from error
    if depth(value) > MAX_JSON_DEPTH:
        raise Refused("too deep")
    return value


def depth(value):
    levels, deepest = [(value, 1)], 0
    while levels:
        value, level = levels.pop()
        if isinstance(value, (dict, list)):
            deepest = max(deepest, level)
            levels += [(inner, level + 1) for inner in (value.values() if isinstance(value, dict) else value)]
    return deepest


def json_text(numbers, level=0):
    """A random JSON text, written in a way of its own."""
    blank = "".join(numbers.choices(" \t\n\r", k=numbers.choice([0, 0, 0, 1, 3])))
    choice = numbers.randrange(4 if level > 5 else 7)
    if choice == 0:
        text = numbers.choice(["null", "true", "false", "0", "-0", "1e5", "1E-7", "0.10", "-12.5e+3"])
    elif choice == 1:
        text = f"{numbers.choice(['', '-'])}{numbers.getrandbits(numbers.choice([4, 64, 200]))}"
    elif choice in (2, 3):
        text = json_string(numbers)
    elif choice == 4 and numbers.random() < 0.1:
        levels = numbers.choice([1, 100, MAX_JSON_DEPTH - level, MAX_JSON_DEPTH - level + 1, 1000])
        text = "[" * levels + "]" * levels
    elif choice in (4, 5):
        text = "[" + ",".join(json_text(numbers, level + 1) for _ in range(numbers.randrange(5))) + "]"
    else:
        pairs = (f"{json_string(numbers)}{blank}:{json_text(numbers, level + 1)}" for _ in range(numbers.randrange(5)))
        text = "{" + ",".join(pairs) + "}"
    return blank + text + blank


def json_string(numbers):
    parts = []
    for _ in range(numbers.randrange(6)):
        code = numbers.choice(
            [numbers.randrange(0x20, 0x7F), numbers.randrange(0x80, 0xD800), 0x1F600, 0xE9, 0x301, 0x7F])
        character = chr(code)
        if character in '"\\' or numbers.random() < 0.3:
            units = character.encode("utf-16-be")
            parts += [f"\\u{units[i:i + 2].hex()}" for i in range(0, len(units), 2)]
        else:
            parts.append(character)
    return '"' + "".join(parts + [numbers.choice(["", "", r"\n", r"\/", r"\b", r"\u0000"])]) + '"'


def test_json(wire):
    wire.send("PUT", "/v1/sessions/s", b"{}", Content_Type="application/json")
    kinds = {True: 0, False: 0}
    for numbers in cases("json"):
        data = json_text(numbers).encode()
        if numbers.random() < 0.6:
            data = mutated(data, numbers)
        status, _, answer = wire.send("PUT", "/v1/sessions/s/state/k", data, Content_Type="application/json")
        try:
            expected = parsed(data)
        except Refused as reason:
            assert status == 400 and json.loads(answer)["code"] == "malformed_json", (data, status, answer, reason)
            kinds[False] += 1
            continue
        assert status in (201, 204), (data, status, answer)
        status, _, answer = wire.send("GET", "/v1/sessions/s/state/k")
        assert status == 200 and parsed(answer) == expected, (data, answer)
        kinds[True] += 1
    assert min(kinds.values()) > CASES / 10


def test_percent_encoding(wire):
    """Names that a URL carries are bytes: `%` with two digits, and UTF-8 without control characters."""
    kinds = {True: 0, False: 0}
    plain = "abcABC019-._~!$&'()*+,;=:@%"
    for numbers in cases("percent"):
        choice = numbers.randrange(3)
        if choice == 0:
            segment = "".join(numbers.choices(plain, k=numbers.randint(1, 12)))
        elif choice == 1:
            text = "".join(chr(numbers.choice([0x41, 0x2F, 0xE9, 0x2603, 0x1F600, 0x25, 0x20])) for _ in range(8))
            segment = quote(text, safe="")
        else:
            segment = "".join(f"%{byte:02{numbers.choice('xX')}}" for byte in numbers.randbytes(numbers.randint(1, 4)))
        if numbers.random() < 0.1:
            segment += "%41" * numbers.choice([500, 511, 512, 513])
        status, _, answer = wire.send("PUT", f"/v1/cache/n/entries/{segment}", b"x")
        is_encoded = re.fullmatch(r"(?:[^%]|%[0-9a-fA-F]{2})*", segment) is not None
        raw = unquote_to_bytes(segment)
        try:
            key = raw.decode("utf-8")
        except UnicodeDecodeError:
            is_encoded = False
        if not is_encoded:
            assert status == 400 and json.loads(answer)["code"] == "bad_percent_encoding", (segment, status, answer)
        elif len(raw) > MAX_KEY_BYTES or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in key):
            assert status == 422, (segment, status, answer)
        else:
            assert status in (201, 204), (segment, status, answer)
            metadata = wire.send("GET", f"/v1/cache/n/entries/{segment}/metadata")[2]
            assert json.loads(metadata)["key"] == key, (segment, metadata)
        kinds[status < 300] += 1
    assert min(kinds.values()) > CASES / 10


def test_ranges(wire):
    length = 1000
    value = bytes(range(250)) * 4
    wire.send("PUT", "/v1/cache/n/entries/k", value)
    statuses = {200: 0, 206: 0, 416: 0}
    for numbers in cases("range"):
        def number():
            return str(numbers.choice(["", 0, 1, 9, 500, length - 1, length, length + 1, 2**63, 2**64, 10**40, "007"]))

        header = f"bytes={number()}-{number()}"
        choice = numbers.randrange(6)
        if choice == 0:
            header = mutated(header.encode(), numbers).decode("latin-1")
            header = "".join(c for c in header if 0x20 < ord(c) < 0x7F)
        elif choice == 1:
            header = numbers.choice(["BYTES = ", "items=", "bytes=0-1,", "bytes", "bytes=="]) + header
        status, headers, body = wire.send("GET", "/v1/cache/n/entries/k", Range=header)
        statuses[status] += 1
        match = re.fullmatch(r"[ \t]*bytes[ \t]*=[ \t]*(?:(\d+)-(\d*)|-(\d+))[ \t]*", header, re.IGNORECASE | re.ASCII)
        unit, equals, ranges = header.partition("=")
        if unit.strip().lower() != "bytes" or not equals or "," in ranges:
            expected = (200, value)
        elif not match:
            expected = (416, None)
        elif match[3] is not None:
            part = value[max(0, length - int(match[3])):]
            expected = (206, part) if part else (416, None)
        elif int(match[1]) >= length or (match[2] and int(match[2]) < int(match[1])):
            expected = (416, None)
        else:
            expected = (206, value[int(match[1]):int(match[2] or length) + 1])
        assert (status, body if status != 416 else None) == expected, (header, status, len(body))
        if status == 206:
            start = int(re.fullmatch(r"bytes (\d+)-(\d+)/1000", headers["Content-Range"])[1])
            assert value[start:start + len(body)] == body and headers["Content-Length"] == str(len(body))
    assert min(statuses.values()) > CASES / 20


MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def http_date(at, form):
    """In one of the three forms of RFC 9110, section 5.6.7."""
    day, month, clock = DAYS[at.weekday()], MONTHS[at.month - 1], at.strftime("%H:%M:%S")
    if form == 0:
        return f"{day[:3]}, {at.day:02} {month} {at.year:04} {clock} GMT"
    if form == 1:
        return f"{day}, {at.day:02}-{month}-{at.year % 100:02} {clock} GMT"
    return f"{day[:3]} {month} {at.day:2} {clock} {at.year:04}"


def test_http_dates(wire):
    wire.send("PUT", "/v1/cache/n/entries/k", b"x")
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    modified = wire.send("HEAD", "/v1/cache/n/entries/k")[1]["Last-Modified"]
    for numbers in cases("date"):
        form = numbers.randrange(3)
        # Two digits of a year mean one from 49 years ago to 50 years ahead.
        days = numbers.choice([1, 400, 15_000])
        seconds = numbers.randrange(10, days * 86_400) * numbers.choice([-1, 1])
        at = now + datetime.timedelta(seconds=seconds)
        status = wire.send("GET", "/v1/cache/n/entries/k", If_Modified_Since=http_date(at, form))[0]
        assert status == (304 if at >= now else 200), (http_date(at, form), modified)
        # What is no date is ignored, or at least does no harm.
        odd = mutated(http_date(at, form).encode(), numbers).decode("latin-1")
        odd = "".join(c for c in odd if 0x20 <= ord(c) < 0x7F)
        assert wire.send("GET", "/v1/cache/n/entries/k", If_Modified_Since=odd)[0] in (200, 304)
    assert wire.send("GET", "/v1/cache/n/entries/k", If_Modified_Since=modified)[0] == 304


def test_instants(wire):
    """Answers repeat the span that was asked for, in UTC and with milliseconds."""
    pattern = re.compile(
        r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII)
    kinds = {True: 0, False: 0}
    for numbers in cases("instant"):
        at = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=numbers.randrange(400_000_000))
        fraction = numbers.choice(["", ".5", ".123", ".000999", ".123456789", "." + "9" * 30])
        offset = numbers.choice(["Z", "z", "+00:00", "-00:00", "+05:30", "-23:59", "+14:00"])
        text = at.strftime(f"%Y-%m-%d{numbers.choice('Tt ')}%H:%M:%S{fraction}{offset}")
        if numbers.random() < 0.5:
            text = mutated(text.encode(), numbers).decode("latin-1")
        expected = None
        match = pattern.fullmatch(text)
        if match and match[1] in ("0000", "9999"):
            # Python has no year 0, nor one after 9999.
            continue
        if match:
            try:
                second = int(match[6])
                at = datetime.datetime(*(int(match[i]) for i in range(1, 6)), second=min(second, 59))
                hours, minutes = int(match[10] or 0), int(match[11] or 0)
                if second <= 60 and hours <= 23 and minutes <= 59:
                    offset = datetime.timedelta(hours=hours, minutes=minutes) * (-1 if match[9] == "-" else 1)
                    expected = at - offset + datetime.timedelta(
                        seconds=second - min(second, 59), milliseconds=int((match[7] or "0").ljust(3, "0")[:3]))
            except (ValueError, OverflowError):
                expected = None
        # A span must not be too long, so it ends soon after.
        until = (expected or datetime.datetime(2030, 1, 1)) + datetime.timedelta(hours=1)
        status, _, answer = wire.send(
            "GET", f"/v1/metrics/timings?since={quote(text, safe='')}&until={until.isoformat()}Z")
        if expected is None:
            assert status in (400, 422), (text, status, answer)
        else:
            assert status == 200, (text, status, answer)
            assert json.loads(answer)["since"] == expected.isoformat(timespec="milliseconds") + "Z", (text, answer)
        kinds[status == 200] += 1
    assert min(kinds.values()) > CASES / 10


def test_entity_tags(wire):
    wire.send("PUT", "/v1/cache/n/entries/k", b"x")
    own = wire.send("HEAD", "/v1/cache/n/entries/k")[1]["ETag"]
    kinds = {200: 0, 304: 0}
    for numbers in cases("tag"):
        tags = [numbers.choice([own, f"W/{own}", '"a"', '""', '"a,b"', '"*"', own.upper(), f'"{own[1:9]}"'])
                for _ in range(numbers.randint(1, 4))]
        separators = [numbers.choice([",", ", ", " , ", ",,"]) for _ in tags]
        header = "".join(tag + separator for tag, separator in zip(tags, separators)).rstrip(" ,")
        known = own in tags or f"W/{own}" in tags
        status = wire.send("GET", "/v1/cache/n/entries/k", If_None_Match=header)[0]
        assert status == (304 if known else 200), (header, status)
        status = wire.send("HEAD", "/v1/cache/n/entries/k", If_Match=header)[0]
        assert status == (200 if own in tags else 412), (header, status)
        kinds[304 if known else 200] += 1
        odd = "".join(c for c in mutated(header.encode(), numbers).decode("latin-1") if 0x20 <= ord(c) < 0x7F)
        assert wire.send("GET", "/v1/cache/n/entries/k", If_None_Match=odd)[0] in (200, 304)
    assert min(kinds.values()) > CASES / 10


def test_cursors(wire):
    """A cursor leads on, and a damaged one is refused or leads somewhere."""
    wire.send("PUT", "/v1/sessions/s", b"{}", Content_Type="application/json")
    for number in range(5):
        wire.send("PUT", f"/v1/cache/n/entries/k{number}", b"x")
        wire.send("POST", "/v1/sessions/s/history", b'{"data": 1}', Content_Type="application/json")
    places = ["/v1/cache/n/entries", "/v1/cache", "/v1/history", "/v1/sessions/s/history", "/v1/sessions",
              "/v1/maintenance/runs", "/v1/session-templates", "/v1/samples"]
    known = [json.loads(wire.send("GET", f"{place}?limit=1")[2])["next_cursor"] for place in places]
    assert known[0] and known[2] and known[3]
    for numbers in cases("cursor"):
        place, cursor = numbers.choice(places), numbers.choice([cursor for cursor in known if cursor])
        choice = numbers.randrange(3)
        if choice == 0:
            cursor = mutated(cursor.encode(), numbers).decode("latin-1")
        elif choice == 1:
            inner = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            cursor = base64.urlsafe_b64encode(mutated(inner, numbers)).decode().rstrip("=")
        else:
            extremes = [0, 1, 17, -1, 2**63 - 1, -2**63, 2**63]
            text = f"{numbers.choice(extremes)}.{numbers.choice(extremes)}"
            cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        status, _, answer = wire.send("GET", f"{place}?limit=2&cursor={quote(cursor, safe='')}")
        assert status in (200, 422), (place, cursor, answer)
        assert status == 422 or len(json.loads(answer)["items"]) <= 2
