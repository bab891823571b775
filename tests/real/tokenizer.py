#!/usr/bin/env python3
"""Writes a small tokenizer folder, so that load clients need no model hub.

usage:  tokenizer.py FOLDER
needs:  pip install tokenizers transformers

A byte-level BPE over made-up words. How a client splits text hardly matters here: tokens are counted by what the engine
reports, and prompts only have to be made of something.
"""

import itertools
import json
import os
import random
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SYLLABLES = [a + b for a, b in itertools.product("bdfgklmnprstvz", "aeiou")]


def text(lines):
    dice = random.Random(1)
    word = lambda: "".join(dice.choices(SYLLABLES, k=dice.randint(1, 3)))
    return [" ".join(word() for _ in range(100)) for _ in range(lines)]


def main(folder):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(text(500), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=32768)
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    with open(os.path.join(folder, "config.json"), "w") as out:  # loaders want to know a model's kind
        json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(fast)}, out)


if __name__ == "__main__":
    main(sys.argv[1])
