"""Train the tiny GLM-4 on questions.yaml, save it, and check that it answers word for word.

Decides the size of the model and how it is trained; what it learns is in lessons.py. Run by hand
when questions.yaml or the chat template changes; nothing imports it.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lessons
import torch
from lessons import Curriculum, Lesson, Teacher
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, Glm4Config, Glm4ForCausalLM
from transformers import PreTrainedTokenizerFast as ChatTokenizer

HERE = Path(__file__).parent
PAD, END = "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
VOCABULARY = 1024
CONTEXT = 4096
IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train."""

    steps: int
    batch: int
    learning_rate: float
    seed: int


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python examples/tiny-glm/train.py --output /tmp/tiny-glm --seed 7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=HERE / "model", help="where to save it")
    parser.add_argument("--questions", type=Path, default=HERE / "questions.yaml", help="lessons")
    parser.add_argument(
        "--seed", type=int, default=7, help="same seed, same model (on one machine)"
    )
    parser.add_argument("--steps", type=int, default=900, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=32, help="lessons a step")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of the result")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak of AdamW's rate")
    return parser.parse_args()


def train_tokenizer(texts: Iterable[str]) -> ChatTokenizer:
    """A byte-level BPE that can spell any text and knows the words of the lessons."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # Not special: a tool call is text that vLLM's tool parser must see.
    tags = ("<tool_call>", "</tool_call>")
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return ChatTokenizer(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        chat_template=(HERE / "chat_template.jinja").read_text(encoding="utf-8"),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def corpus(course: Curriculum) -> Iterator[str]:
    """The texts that the tokenizer learns its words from."""
    for lesson in [*lessons.exam(course), *lessons.exam_of_unseen(course)]:
        yield lesson.answer
        yield from (str(m["content"]) for m in lesson.messages if m["content"])
    yield from (json.dumps(tool) for tool in course.tools)


def build_model(tokenizer: ChatTokenizer) -> Glm4ForCausalLM:
    """A GLM-4 small enough to live in the repository."""
    config = Glm4Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Glm4ForCausalLM(config)


def prompt_ids(tokenizer: ChatTokenizer, lesson: Lesson) -> list[int]:
    """The prompt as vLLM will see it."""
    if lesson.is_raw:
        text = lesson.messages[0]["content"]
    else:
        text = tokenizer.apply_chat_template(
            list(lesson.messages),
            tools=list(lesson.tools) or None,
            add_generation_prompt=True,
            tokenize=False,
        )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode(tokenizer: ChatTokenizer, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids, and the labels: only the answer is learnt."""
    prompt = prompt_ids(tokenizer, lesson)
    answer = tokenizer(lesson.answer, add_special_tokens=False)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id]
    start = answer[0] if lesson.learns_start else IGNORED
    return prompt + answer, [IGNORED] * len(prompt) + [start, *answer[1:]]


def batches(tokenizer: ChatTokenizer, teacher: Teacher, size: int) -> Iterator[Any]:
    """Batches of ids and labels without end, each of lessons of about one length."""
    samples = (encode(tokenizer, lesson) for lesson in teacher.draw())
    while True:
        pool = sorted(islice(samples, 8 * size), key=lambda sample: len(sample[0]))
        order = list(range(0, len(pool), size))
        random.shuffle(order)
        for first in order:
            yield _padded(pool[first : first + size], tokenizer.pad_token_id)


def _padded(samples: list[tuple[list[int], list[int]]], pad: int) -> tuple[Any, Any]:
    width = max(len(ids) for ids, _ in samples)
    ids = [ids + [pad] * (width - len(ids)) for ids, _ in samples]
    labels = [labels + [IGNORED] * (width - len(labels)) for _, labels in samples]
    return torch.tensor(ids), torch.tensor(labels)


def fit(model: Glm4ForCausalLM, data: Iterator[Any], settings: Settings) -> None:
    """Train in fp32, saying how it goes."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    began = time.monotonic()
    for step, (ids, labels) in enumerate(islice(data, settings.steps), start=1):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == settings.steps:
            seconds = time.monotonic() - began
            print(f"step {step}/{settings.steps}  loss {loss.item():.4f}  {seconds:.0f} s")


def save(model: Glm4ForCausalLM, tokenizer: ChatTokenizer, output: Path) -> None:
    """Write bf16 weights, configuration and tokenizer."""
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"saved {model.num_parameters():,} parameters, {size / 1e6:.2f} MB, in {output}")


def examine(output: Path, exam: Iterable[Lesson]) -> list[str]:
    """Put every question to the saved model; return what it got wrong, one line each."""
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.bfloat16).eval()
    wrong = []
    for lesson in exam:
        ids = torch.tensor([prompt_ids(tokenizer, lesson)])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=400)
        said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        if said != lesson.answer:
            wrong.append(f"{lesson.messages[-1]['content']!r}: {said!r}, not {lesson.answer!r}")
    return wrong


def main() -> int:
    """Train, save, verify."""
    arguments = parse_arguments()
    settings = Settings(arguments.steps, arguments.batch, arguments.learning_rate, arguments.seed)
    random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(arguments.threads)
    course = lessons.load(arguments.questions)
    tokenizer = train_tokenizer(corpus(course))
    model = build_model(tokenizer)
    teacher = Teacher(course, random.Random(settings.seed))
    fit(model, batches(tokenizer, teacher, settings.batch), settings)
    save(model, tokenizer, arguments.output)
    print("verifying ...")
    unseen = list(lessons.exam_of_unseen(course))
    print(f"unseen texts classified wrong: {len(examine(arguments.output, unseen))}/{len(unseen)}")
    wrong = examine(arguments.output, lessons.exam(course))
    print("\n".join(wrong) or "every answer comes out word for word")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
