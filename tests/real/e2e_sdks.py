#!/usr/bin/env python3
"""The client libraries that people use, through weir: OpenAI's, Anthropic's and Ollama's, unchanged.

usage:  e2e.sh sdks

For each library: answers whole and streamed, with the text, the chunks and the token counts compared with weir's books;
failures of the engine; and weir's own refusals, which must arrive as that library's own error types with the reason and the
time to come back. Where retries are the library's business (OpenAI's and Anthropic's), it must obey weir's Retry-After.
Tool calls come from tools.py, since the simulated engine has none.

Exit status 0: every check held.
"""

import argparse
import asyncio
import contextlib
import threading
import time

import anthropic
import httpx
import ollama
import openai

import tools
from harness import check, free_port, grown, identities, settled, verdict, wait_until, weir, weir_engine

MODEL, TOKENS = "weir-sim", 24
QUESTION = [{"role": "user", "content": "Tell me about a river, a mill and the sea."}]
EXACT = {"ignore_eos": True}
KEY = "sk-this-key-must-not-be-seen"
STREAMS_AT_ONCE = 32


def openai_at(port, **options):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, timeout=60, **{"max_retries": 0} | options)


def anthropic_at(port, **options):
    return anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=KEY, timeout=60, **{"max_retries": 0} | options)


class Ollama:
    """Ollama's client; its errors carry no head, so the head of the last answer is kept here."""

    def __init__(self, port):
        self.head = httpx.Headers()
        hooks = {"response": [lambda answer: setattr(self, "head", answer.headers)]}
        self.client = ollama.Client(host=f"http://127.0.0.1:{port}", timeout=60, event_hooks=hooks, headers={"authorization": f"Bearer {KEY}"})


def raised(kind, call):
    """What a call raises, which must be of that kind; None if it does not."""
    try:
        call()
    except kind as why:
        return why
    except Exception as why:  # any other kind is what the check is there to find
        print(f"          {type(why).__name__}: {why}")
    return None


class Books:
    """What weir has booked since this was made, set beside what a library saw."""

    def __init__(self, admin):
        self.admin, self.before = admin, settled(admin)

    def agree(self, name, requests, tokens, outcome="completed"):
        after = settled(self.admin)
        ended = grown(self.before, after, "weir_requests_finished_total", outcome=outcome)
        counted = grown(self.before, after, "weir_output_tokens_total")
        check(ended == requests and counted == tokens,
              f"{name}: weir {ended:.0f} {outcome}, {counted:.0f} tokens; the client {requests} and {tokens}")
        self.before = after


def openai_answers(data, admin):
    books, client = Books(admin), openai_at(data)
    check([model.id for model in client.models.list()] == [MODEL], "openai: models.list")

    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=TOKENS, extra_body=EXACT, extra_headers={"x-request-id": "sdk-1"})
    answer = raw.parse()
    check(answer.usage.completion_tokens == TOKENS and answer.choices[0].finish_reason == "length" and answer.choices[0].message.content,
          "openai: a whole chat answer")
    check(answer._request_id == "sdk-1" and raw.headers.get("x-weir-backend") and raw.headers.get("x-weir-queue-ms") is not None,
          "openai: the request's id comes back, with x-weir-backend and x-weir-queue-ms")
    books.agree("openai chat", 1, TOKENS)

    chunks = list(client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=TOKENS, stream=True, stream_options={"include_usage": True}, extra_body=EXACT))
    words = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    check(len(words) == TOKENS and chunks[-1].usage.completion_tokens == TOKENS, f"openai: {len(words)} streamed words, usage at the end")
    books.agree("openai chat streamed", 1, TOKENS)

    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=TOKENS, stream=True, n=2, extra_body=EXACT))
    by_choice = [sum(1 for c in chunks for x in c.choices if x.index == i and x.delta.content) for i in (0, 1)]
    check(by_choice == [TOKENS, TOKENS], f"openai: two choices, {by_choice} words, no usage asked for")
    books.agree("openai chat, two choices", 1, 2 * TOKENS)

    answer = client.completions.create(model=MODEL, prompt="A river", max_tokens=TOKENS, extra_body=EXACT)
    chunks = list(client.completions.create(model=MODEL, prompt="A river", max_tokens=TOKENS, stream=True, extra_body=EXACT))
    words = [c.choices[0].text for c in chunks if c.choices and c.choices[0].text]
    check(answer.usage.completion_tokens == len(words) == TOKENS, "openai: completions, whole and streamed")
    books.agree("openai completions", 2, 2 * TOKENS)

    with client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4096, stream=True, extra_body=EXACT) as stream:
        next(iter(stream))
    after = settled(admin)
    left = grown(books.before, after, "weir_requests_finished_total", outcome="client_cancelled")
    check(left == 1, f"openai: a stream that the client leaves is booked as cancelled ({left:.0f})")


async def openai_at_once(data):
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{data}/v1", api_key=KEY, max_retries=0, timeout=60)

    async def one(number):
        stream = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=number + 1, stream=True, stream_options={"include_usage": True}, extra_body=EXACT)
        return [chunk async for chunk in stream][-1].usage.completion_tokens

    return await asyncio.gather(*map(one, range(STREAMS_AT_ONCE)))


def anthropic_answers(data, admin):
    books, client = Books(admin), anthropic_at(data)
    ask = {"model": MODEL, "messages": QUESTION, "max_tokens": TOKENS, "extra_body": EXACT}
    answer = client.messages.create(**ask)
    check(answer.usage.output_tokens == TOKENS and answer.stop_reason == "max_tokens" and answer.content[0].text, "anthropic: a whole message")
    books.agree("anthropic messages", 1, TOKENS)

    events = list(client.messages.create(**ask, stream=True))
    words = [e.delta.text for e in events if e.type == "content_block_delta"]
    check(len(words) == TOKENS and events[-1].type == "message_stop", f"anthropic: {len(words)} streamed words")
    with client.messages.stream(**ask) as stream:
        text, final = "".join(stream.text_stream), stream.get_final_message()
    check(text == final.content[0].text and final.usage.output_tokens == TOKENS, "anthropic: the stream helper's final message")
    books.agree("anthropic messages streamed", 2, 2 * TOKENS)


def ollama_answers(data, admin):
    books, client = Books(admin), Ollama(data).client
    options = {"num_predict": TOKENS}
    check([model.model for model in client.list().models] == [MODEL], "ollama: list")
    answer = client.chat(model=MODEL, messages=QUESTION, options=options)
    told = client.generate(model=MODEL, prompt="A river", options=options)
    check(answer.done and answer.message.content and told.done and told.response, "ollama: chat and generate, whole")
    books.agree("ollama whole", 2, answer.eval_count + told.eval_count)

    lines = list(client.chat(model=MODEL, messages=QUESTION, options=options, stream=True))
    words = [line.message.content for line in lines if line.message.content]
    check(len(words) == lines[-1].eval_count and lines[-1].done_reason == "length", f"ollama: {len(words)} streamed words in chat")
    books.agree("ollama chat streamed", 1, len(words))
    lines = list(client.generate(model=MODEL, prompt="A river", options=options, stream=True))
    words = [line.response for line in lines if line.response]
    check(len(words) == lines[-1].eval_count, f"ollama: {len(words)} streamed words in generate")
    books.agree("ollama generate streamed", 1, len(words))


def three(data, fault=None, stream=False):
    """The same request by each library: name, the base of its errors, the call."""
    headers = {"x-engine-fault": fault} if fault else {}
    chat = {"model": MODEL, "messages": QUESTION, "stream": stream}
    by_openai, by_anthropic, by_ollama = openai_at(data), anthropic_at(data), Ollama(data)
    by_ollama.client._client.headers.update(headers)
    read = list if stream else (lambda answer: answer)
    return [
        ("openai", openai.APIError, lambda: read(by_openai.chat.completions.create(**chat, max_tokens=TOKENS, extra_body=EXACT, extra_headers=headers))),
        ("anthropic", anthropic.APIError, lambda: read(by_anthropic.messages.create(**chat, max_tokens=TOKENS, extra_body=EXACT, extra_headers=headers))),
        ("ollama", ollama.ResponseError, lambda: read(by_ollama.client.chat(**chat))),
    ]


def engine_failures(data, admin):
    """What the engine says is passed on; what it breaks off ends in an error, never in what looks complete."""
    for status in (400, 429, 503):
        before = settled(admin)
        for name, kind, call in three(data, f"status={status}"):
            why = raised(kind, call)
            check(why and why.status_code == status and "as it was asked to" in str(why), f"{name}: the engine's own {status} arrives: {type(why).__name__}")
        shed = grown(before, settled(admin), "weir_requests_shed_total")
        check(shed == 0, f"the engine's {status} is not booked as weir's refusal")
    for fault, outcome in [("reset-after=5", "upstream_reset"), ("cut-after=5", "upstream_truncated"), ("error-event-after=5", "upstream_error")]:
        before = settled(admin)
        for name, kind, call in three(data, fault, stream=True):
            why = raised(kind, call)
            check(why is not None, f"{name}: a stream broken off by {fault} ends in {type(why).__name__}: {why}")
        ended = grown(before, settled(admin), "weir_requests_finished_total", outcome=outcome)
        check(ended == 3, f"weir: {ended:.0f} of 3 {outcome}")


def refused(data, status, reason, come_back, kinds):
    """weir's own refusal in each library's own type, with the reason and the time to come back in the head."""
    by_ollama = Ollama(data)
    calls = {name: call for name, _, call in three(data)}
    calls["ollama"] = lambda: by_ollama.client.chat(model=MODEL, messages=QUESTION)
    for (name, call), kind in zip(calls.items(), kinds):
        why = raised(kind, call)
        head = by_ollama.head if name == "ollama" else why.response.headers if why else {}
        seen = (getattr(why, "status_code", None), head.get("x-weir-shed-reason"), head.get("retry-after"))
        check(seen == (status, reason, come_back), f"{name}: {type(why).__name__} {seen[0]}, reason {seen[1]}, Retry-After {seen[2]}")
        check(why is not None and KEY not in str(why) and (name == "ollama" or isinstance(why.body, dict)), f"{name}: it says: {why}")


def refusals(binary):
    with weir_engine(binary, "--faults") as engine:
        with weir(binary, engine, {"limits": {"max_body": "64B"}}) as (data, _):
            refused(data, 413, "body_too_large", None, [openai.APIStatusError, anthropic.APIStatusError, ollama.ResponseError])
    with weir(binary, free_port(), path="/livez") as (data, admin):
        wait_until(lambda: settled(admin).sum("weir_backend_up") == 0)
        kinds = [openai.InternalServerError, anthropic.APIStatusError, ollama.ResponseError]
        refused(data, 503, "no_backend", "1", kinds)


def silence(binary):
    """An engine that never answers: weir's 504 in each library."""
    with weir_engine(binary, "--faults") as engine, weir(binary, engine, {"limits": {"first_byte_timeout": "300ms"}}) as (data, _):
        for name, kind, call in three(data, "hang"):
            why = raised(kind, call)
            check(why and why.status_code == 504, f"{name}: a silent engine: {type(why).__name__} {getattr(why, 'status_code', None)}: {why}")


def obedience(binary):
    """A library that retries comes back when weir said it should, and is served once the engine is there."""
    for name, at, call in [
        ("openai", openai_at, lambda client: client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)),
        ("anthropic", anthropic_at, lambda client: client.messages.create(model=MODEL, messages=QUESTION, max_tokens=2)),
    ]:
        port = free_port()
        health = {"backends": [{"url": f"http://127.0.0.1:{port}", "health": {"interval": "100ms"}}]}
        with weir(binary, port, health, path="/livez") as (data, admin), contextlib.ExitStack() as engines:
            wait_until(lambda: settled(admin).sum("weir_backend_up") == 0)
            starting = threading.Timer(0.3, lambda: engines.enter_context(weir_engine(binary, port=port)))
            begin = time.monotonic()
            starting.start()
            answer = call(at(data, max_retries=10))
            took = time.monotonic() - begin
            starting.join()
            now = settled(admin)
            shed = now.sum("weir_requests_shed_total", reason="no_backend")
            check(answer and 1 <= shed <= took,
                  f"{name}: served after {took:.2f} s and {shed:.0f} refusal(s) with Retry-After 1")


def tool_calls(binary):
    with tools.engine() as engine, weir(binary, engine, {"backends": [{"url": f"http://127.0.0.1:{engine}", "health": {"path": "/"}}]}) as (data, admin):
        for name, calls in [
            ("openai", lambda: tools.by_openai(openai_at(data))),
            ("anthropic", lambda: tools.by_anthropic(anthropic_at(data))),
            ("ollama", lambda: tools.by_ollama(Ollama(data).client)),
        ]:
            books = Books(admin)
            seen = [calls(), calls()]
            check(seen == [tools.CALL] * 2, f"{name}: the tool call arrives whole: {seen[0]}")
            after = settled(admin)
            first = grown(books.before, after, "weir_upstream_time_to_first_token_seconds_count")
            check(first == 2, f"{name}: a tool call is a first token ({first:.0f} of 2)")
            books.agree(f"{name} tool calls", 2, 2 * tools.TOKENS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    binary = parser.parse_args().weir
    print(f"openai {openai.__version__}, anthropic {anthropic.__version__}, ollama client")
    with weir_engine(binary, "--faults") as engine, weir(binary, engine) as (data, admin):
        openai_answers(data, admin)
        books = Books(admin)
        tokens = asyncio.run(openai_at_once(data))
        check(tokens == list(range(1, STREAMS_AT_ONCE + 1)), f"openai: {STREAMS_AT_ONCE} streams at once, each with the length it asked for")
        books.agree("openai at once", STREAMS_AT_ONCE, sum(tokens))
        anthropic_answers(data, admin)
        ollama_answers(data, admin)
        engine_failures(data, admin)
        identities(admin)
    refusals(binary)
    silence(binary)
    obedience(binary)
    tool_calls(binary)
    return verdict()


if __name__ == "__main__":
    raise SystemExit(main())
