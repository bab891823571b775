"""An engine that answers every request with the same tool call, in the dialects of OpenAI, Anthropic and Ollama.

The events have the shape that vLLM, Anthropic and Ollama send: the name first, the arguments in pieces. It counts nothing and
waits for nothing; the client libraries put the call together again.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALL = ("river_level", {"river": "Aare", "days": 3})
TOKENS = 7
PIECES = ['{"river": "', "Aare", '", "days": ', "3}"]
ASK = "How high is the Aare?"
SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}, "days": {"type": "integer"}}}


def by_openai(client):
    """The call as the streaming helper puts it together, after the same unstreamed."""
    tool = {"type": "function", "function": {"name": CALL[0], "parameters": SCHEMA}}
    ask = {"model": "m", "messages": [{"role": "user", "content": ASK}], "tools": [tool], "stream": True}
    name, arguments = "", ""
    for chunk in client.chat.completions.create(**ask, stream_options={"include_usage": True}):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name, arguments = name + (call.function.name or ""), arguments + (call.function.arguments or "")
    return name, json.loads(arguments)


def by_anthropic(client):
    tool = {"name": CALL[0], "input_schema": SCHEMA}
    ask = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": ASK}], "tools": [tool]}
    with client.messages.stream(**ask) as stream:
        block = stream.get_final_message().content[0]
    return block.name, block.input


def by_ollama(client):
    tool = {"type": "function", "function": {"name": CALL[0], "description": "", "parameters": SCHEMA}}
    lines = list(client.chat(model="m", messages=[{"role": "user", "content": ASK}], tools=[tool], stream=True))
    call = next(call for line in lines for call in line.message.tool_calls or [])
    return call.function.name, dict(call.function.arguments)


def openai_events():
    def chunk(delta, finish=None):
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield None, chunk({"role": "assistant", "content": ""})
    yield None, chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": CALL[0]}}]})
    for piece in PIECES:
        yield None, chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield None, chunk({}, "tool_calls")
    yield None, chunk({}) | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS}}
    yield None, "[DONE]"


def anthropic_events():
    head = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None, "stop_sequence": None}
    block = {"type": "tool_use", "id": "toolu_1", "name": CALL[0], "input": {}}
    yield "message_start", {"message": head | {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    yield "content_block_start", {"index": 0, "content_block": block}
    for piece in PIECES:
        yield "content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
    yield "content_block_stop", {"index": 0}
    yield "message_delta", {"delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": TOKENS}}
    yield "message_stop", {}


def event_stream(events):
    for name, data in events:
        if name:
            yield f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n"
        else:
            yield f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def ollama_lines():
    message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": CALL[0], "arguments": CALL[1]}}]}
    head = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
    yield json.dumps(head | {"message": message, "done": False}) + "\n"
    done = {"done": True, "done_reason": "stop", "total_duration": 9, "load_duration": 0, "prompt_eval_count": 9, "eval_count": TOKENS}
    yield json.dumps(head | {"message": {"role": "assistant", "content": ""}} | done) + "\n"


ANSWERS = {
    "/v1/chat/completions": ("text/event-stream", lambda: event_stream(openai_events())),
    "/v1/messages": ("text/event-stream", lambda: event_stream(anthropic_events())),
    "/api/chat": ("application/x-ndjson", ollama_lines),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        kind, pieces = ANSWERS[self.path]
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece.encode()))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def engine():
    """The engine; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
