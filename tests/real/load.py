"""A small streaming client: closed and open loops of chat requests, and what each request looked like from outside.

It measures with the standard library only and knows nothing of weir; it is the second opinion on times and counts.
"""

import http.client
import json
import queue
import random
import threading
import time


def events(answer):
    """The JSON of every `data:` line, with the time it was read at."""
    for line in answer:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            yield time.monotonic(), json.loads(line[6:])


class Sent:
    """What the client saw of one request."""

    def __init__(self):
        self.status = 0
        self.first = self.last = self.end = None
        self.tokens = 0
        self.at = None  # when it ended, by the wall clock
        self.timings = None
        self.error = None


def chat(port, number, tokens, patience=120, model="test-model"):
    """One streamed request; a client with `patience` leaves after so many seconds in which nothing came."""
    sent, begin = Sent(), time.monotonic()
    body = json.dumps({
        "model": model,
        "messages": [{"role": "user", "content": f"Tell story number {number} about a river, a mill and the sea."}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "cache_prompt": False,
        "seed": number,
    })
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        sent.status = answer.status
        for at, event in events(answer):
            if any(c["delta"].get("content") for c in event.get("choices", [])):
                sent.last = at - begin
                sent.first = sent.first or sent.last
            sent.tokens = (event.get("usage") or {}).get("completion_tokens", sent.tokens)
            sent.timings = event.get("timings") or sent.timings
    except (OSError, http.client.HTTPException, ValueError) as why:
        sent.error = repr(why)
    finally:
        connection.close()
    sent.end, sent.at = time.monotonic() - begin, time.time()
    return sent


def closed(port, concurrency, requests, tokens):
    numbers, results = queue.Queue(), queue.Queue()
    for number in range(requests):
        numbers.put(number)

    def worker():
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            results.put(chat(port, number, tokens))

    threads = [threading.Thread(target=worker) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(results.queue)


def open_loop(port, rate, requests, tokens):
    dice, results, threads, at = random.Random(1), queue.Queue(), [], time.monotonic()
    for number in range(requests):
        at += dice.expovariate(rate)
        time.sleep(max(0.0, at - time.monotonic()))
        threads.append(threading.Thread(target=lambda n=number: results.put(chat(port, n, tokens))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return list(results.queue)
