#!/usr/bin/env python3
"""Compares weir's reading of raw requests with h11, llhttp (httptools) and node: nobody may see another request.

First the bytes that weir would forward: each parser must see exactly the one request in them. Then the raw bytes: weir
refuses, or every parser that accepts sees the same requests. A parser that refuses what weir accepts is counted as a
stricter peer, which is harmless as long as the forwarded bytes pass. A planted defect must be noticed, or the run fails.
Needs: pip install h11 httptools; node is used when present.
"""

import argparse, collections, json, pathlib, random, shutil, struct, subprocess, sys

import h11
import httptools

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SPLICES = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";a=b", b"0\r\n\r\n", b"chunked", b"\xff", b"_", b"\x0b",
           b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Host: b\r\n",
           b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0", b"//"]


def corpora():
    folder = ROOT.parent / "shared/data/corpora"
    files = sorted(folder.glob("llhttp/request/*.bin")) + sorted((ROOT / "tests/data/corpora/own/h1").glob("*.bin"))
    cases = [file.read_bytes() for file in files]
    smuggler = folder / "smuggler/cases.jsonl"
    if smuggler.exists():
        cases += [bytes.fromhex(json.loads(line)["hex"]) for line in smuggler.read_text().splitlines() if line]
    else:
        print(f"SKIPPED smuggler and llhttp: {folder} is absent")
    return cases


def mutant(dice, cases, accepted):
    """Half of them start from a request that weir accepts: most of the corpora is refused, and proves nothing new."""
    case = bytearray(dice.choice(dice.choice((cases, accepted)))[:2000])
    for _ in range(dice.randint(1, 3)):
        at = dice.randint(0, len(case))
        match dice.randint(0, 4):
            case 0: case[at:at] = dice.choice(SPLICES)
            case 1: del case[at:at + dice.randint(1, 3)]
            case 2: case[at:at + 1] = bytes([dice.randint(0, 255)])
            case 3: case[at:at] = case[at:at + dice.randint(1, 40)]
            case _:
                line = bytes(case).find(b"\r\n", at)
                if line >= 0: case[line + 2:line + 2] = dice.choice(SPLICES)
    return bytes(case)


def framed(cases):
    return b"".join(struct.pack(">I", len(case)) + case for case in cases)


def lines(command, cases):
    ran = subprocess.run(command, input=framed(cases), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def by_h11(case):
    seen = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(case)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.append((request.method.decode("latin1"), request.target.decode("latin1"), body.hex()))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE: return seen, None
                connection.start_next_cycle()
            else:
                return seen, None
    except Exception as error:
        return seen, str(error)


class Collector:
    def __init__(self): self.seen, self.target, self.body = [], b"", b""
    def on_message_begin(self): self.target, self.body = b"", b""
    def on_url(self, url): self.target += url
    def on_body(self, body): self.body += body
    def on_message_complete(self):
        method = self.parser.get_method().decode()
        self.seen.append((method, self.target.decode("latin1"), self.body.hex()))


def by_llhttp(case):
    collector = Collector()
    collector.parser = httptools.HttpRequestParser(collector)
    try:
        collector.parser.feed_data(case)
    except httptools.HttpParserUpgrade:
        return collector.seen, None
    except Exception as error:
        return collector.seen, repr(error)
    return collector.seen, None


def peers(cases):
    read = {"h11": [by_h11(case) for case in cases], "llhttp": [by_llhttp(case) for case in cases]}
    if shutil.which("node"):
        found = lines(["node", str(HERE / "node_parser.mjs")], cases)
        key = lambda request: (request["method"], request["target"], request["body"])
        read["node"] = [([key(request) for request in one["requests"]], one["error"]) for one in found]
    else:
        print("SKIPPED node: not installed")
    return read


def origin_form(target):
    return "/" + target.split("/", 3)[3] if target.lower().startswith(("http://", "https://")) and target.count("/") > 2 else target


def compare(command, cases, show):
    verdicts = lines(command, cases)
    assert len(verdicts) == len(cases)
    count = collections.Counter(cases=len(cases), refused=sum(v["refused"] is not None for v in verdicts))
    key = lambda request: (request["method"], request["target"], request["body"])
    forwarded = [(bytes.fromhex(r["forwarded"]), key(r)) for v in verdicts for r in v["requests"]]
    count["forwarded"] = len(forwarded)
    for name, found in peers([sent for sent, _ in forwarded]).items():
        for (sent, ours), (seen, error) in zip(forwarded, found):
            if seen != [ours] or error:
                count["FORWARDED DISAGREES"] += 1
                if show > 0: print(f"forwarded, {name}: weir {ours} saw {seen} {error}\n  {sent!r}"); show -= 1
    stricter = {}
    for name, found in peers(cases).items():
        for case, verdict, (seen, error) in zip(cases, verdicts, found):
            ours = [key(r) for r in verdict["requests"]]
            theirs = [(method, origin_form(target), body) for method, target, body in seen]
            if theirs[:len(ours)] == ours and (len(theirs) == len(ours) or verdict["refused"] or verdict["incomplete"] or verdict["closes"]):
                count[f"{name} same" if len(theirs) == len(ours) else f"{name} goes on where weir stops"] += 1
            elif error and ours[:len(theirs)] == theirs:
                count[f"{name} stricter: {str(error)[:60]}"] += 1
                if stricter.setdefault((name, str(error)[:40]), case) is case and show > 0: print(f"stricter {name}: {error}\n  {case[:300]!r}")
            elif verdict["refused"] and not ours:
                count[f"{name} accepts what weir refuses"] += 1
            elif b"upgrade" in case.lower() and [r[:2] for r in ours][:len(theirs)] == [r[:2] for r in theirs]:
                # It stops reading HTTP at an Upgrade, which weir strips: the forwarded bytes have none.
                count[f"{name} stops at an upgrade"] += 1
            else:
                count[f"RAW {name} DISAGREES"] += 1
                if show > 0: print(f"raw, {name}: weir {ours} saw {theirs} {error}\n  {case!r}"); show -= 1
    return count


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--mutants", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--example", default=str(ROOT / "target/debug/examples/http1_verdict"))
    options = arguments.parse_args()
    cases, dice = corpora(), random.Random(options.seed)
    planted = compare([options.example, "--plant"], cases, 0)
    if not planted["FORWARDED DISAGREES"]:
        sys.exit("the planted defect was not noticed: the comparison proves nothing")
    print(f"planted defect noticed {planted['FORWARDED DISAGREES']} times")
    accepted = [case for case, verdict in zip(cases, lines([options.example], cases)) if verdict["requests"]]
    count = compare([options.example], cases + [mutant(dice, cases, accepted) for _ in range(options.mutants)], 10)
    print(json.dumps(count, indent=1))
    sys.exit(any("DISAGREES" in name for name in count))


if __name__ == "__main__":
    main()
