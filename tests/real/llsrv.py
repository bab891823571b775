#!/usr/bin/env python3
"""The real llama.cpp server on 127.0.0.1, out of a prebuilt wheel: no compiler, no GPU.

usage:  llsrv.py MODEL.gguf PORT SLOTS [CONTEXT_PER_SLOT=1024] [THREADS=1] [FIELD=VALUE ...]
        FIELD=VALUE sets any field of xllamacpp.CommonParams, as embedding=1 pooling_type=1
needs:  pip install xllamacpp

Prints `listening URL` when it serves; SIGTERM or SIGINT ends it. One thread is the steadiest on a shared machine: with
more, each step waits for the thread whose core was taken away.
"""

import signal
import sys
import threading

import xllamacpp


def parameters(model, port, slots, context=1024, threads=1):
    p = xllamacpp.CommonParams()
    p.model.path = model
    p.model_alias = ["test-model"] if isinstance(p.model_alias, (list, set)) else "test-model"
    p.hostnames = ["127.0.0.1"]
    p.port = port
    p.n_parallel = slots
    p.n_ctx = context * slots
    p.cont_batching = True
    p.endpoint_metrics = p.endpoint_slots = p.endpoint_props = True
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    p.n_threads_http = 64  # every open stream holds one
    p.warmup = True
    p.ui = False
    return p


def main(arguments):
    plain = [argument for argument in arguments if "=" not in argument]
    p = parameters(plain[0], *map(int, plain[1:]))
    for field, value in (argument.split("=", 1) for argument in arguments if "=" in argument):
        kind = type(getattr(p, field))
        setattr(p, field, kind(int(value)) if value.lstrip("-").isdigit() else kind(value))
    server = xllamacpp.Server(p)
    print("listening", server.listening_address, flush=True)
    stop = threading.Event()
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: stop.set())
    stop.wait()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1:])
