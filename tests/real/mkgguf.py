#!/usr/bin/env python3
"""Writes a small Llama model with random weights in GGUF form, always the same bytes for the same arguments.

usage:  mkgguf.py OUT.gguf [LAYERS=4] [WIDTH=256] [FEED_FORWARD=768] [VOCABULARY=4096]
needs:  pip install gguf

A real engine can be tested with it on any machine: 21 MB, no licence question. The text is nonsense of pronounceable words,
one token a word; special tokens and raw bytes are never drawn, the end of text can be, so requests that need an exact
length send ignore_eos.
"""

import sys

import gguf
import numpy as np

HEADS, KV_HEADS = 8, 4
UNKNOWN, CONTROL, NORMAL, BYTE = 2, 3, 1, 6  # token types of the format
SPECIALS = [(b"<unk>", UNKNOWN), (b"<s>", CONTROL), (b"</s>", CONTROL)]
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}<|assistant|>"


def words():
    """Endless pronounceable words of two or three syllables, none twice."""
    consonants, vowels, number = "bcdfghjklmnprstvwz", "aeiou", 0
    while True:
        rest, word = number, ""
        for _ in range(2 + number % 2):
            word += consonants[rest % 18] + vowels[rest // 18 % 5]
            rest //= 90
        yield "\u2581" + word + (str(number) if number >= 8100 else "")
        number += 1


def vocabulary(size):
    """Texts, types and scores; the first part (specials, bytes, characters) must never be drawn."""
    entries = [(text, kind, 0.0) for text, kind in SPECIALS]
    entries += [(b"<0x%02X>" % byte, BYTE, 0.0) for byte in range(256)]
    entries += [(bytes([char]), NORMAL, -1000.0) for char in range(33, 127)]
    entries.append(("\u2581".encode(), NORMAL, -1000.0))
    fixed = len(entries)
    seen = {text for text, _, _ in entries}
    for rank, word in enumerate(words()):
        if len(entries) >= size:
            return entries, fixed
        text = word.encode()
        if text in seen:
            text += b"%d" % len(entries)
        seen.add(text)
        entries.append((text, NORMAL, -1.0 - rank))


def main(out, layers=4, width=256, feed_forward=768, size=4096):
    random = np.random.default_rng(1234)

    def matrix(rows, columns, gain=1.0):
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    entries, fixed = vocabulary(size)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name("tiny-random-llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in entries])
    writer.add_token_scores([score for _, _, score in entries])
    writer.add_token_types([kind for _, kind, _ in entries])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

    writer.add_tensor("token_embd.weight", matrix(size, width, gain=8))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    output = matrix(size, width, gain=24)
    output[:fixed] = 0  # a logit of 0 among ones of about +-24: hardly ever drawn
    writer.add_tensor("output.weight", output)
    kv_width = KV_HEADS * (width // HEADS)
    for layer in range(layers):
        name = f"blk.{layer}."
        writer.add_tensor(name + "attn_norm.weight", np.ones(width, np.float32))
        writer.add_tensor(name + "ffn_norm.weight", np.ones(width, np.float32))
        for part, rows, columns in [
            ("attn_q", width, width),
            ("attn_k", kv_width, width),
            ("attn_v", kv_width, width),
            ("attn_output", width, width),
            ("ffn_gate", feed_forward, width),
            ("ffn_up", feed_forward, width),
            ("ffn_down", width, feed_forward),
        ]:
            writer.add_tensor(name + part + ".weight", matrix(rows, columns))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:6]))
