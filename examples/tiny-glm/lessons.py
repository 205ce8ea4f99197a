"""What the tiny GLM-4 learns: samples drawn from questions.yaml, and the exam it must pass.

Decides which prompts lead to which answers, and how prompts vary (system prompts, tools, earlier
turns, loose typing) so that answers do not. Knows nothing of tokens or tensors; called by train.py.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a concise assistant.",
    "You are an expert for Open-AutoGLM.",
    "Answer in one sentence.",
    "Answer briefly and truthfully.",
    "Be polite.",
)
# Few and common, so that even this small a model spells them out and closes the string.
JSON_VALUES = (
    "gateway",
    "engine",
    "operator",
    "pod",
    "client",
    "vLLM",
    "model",
    "Paris",
    "cluster",
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt and the one answer it must get."""

    messages: tuple[Message, ...]
    answer: str
    tools: tuple[Tool, ...] = ()
    is_raw: bool = False
    """The text of the only message is the prompt, without the chat template."""
    learns_start: bool = True
    """False where a grammar, not the prompt, decides the first token."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """questions.yaml, parsed."""

    questions: tuple[tuple[str, str], ...]
    task: str
    labels: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    unseen: tuple[tuple[str, str], ...]
    tools: tuple[Tool, ...]
    tool_questions: tuple[Mapping[str, Any], ...]

    @property
    def short(self) -> tuple[tuple[str, str], ...]:
        """Questions whose answers are short enough to serve as an earlier turn."""
        return tuple(pair for pair in self.questions if len(pair[1]) < 300)


def load(path: Path) -> Curriculum:
    """Read questions.yaml."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    classes = data["classification"]
    return Curriculum(
        questions=tuple((item["question"], item["answer"]) for item in data["questions"]),
        task=classes["task"],
        labels=tuple(classes["labels"]),
        texts=_pairs(classes["texts"]),
        unseen=_pairs(classes["unseen"]),
        tools=tuple(data["tools"]),
        tool_questions=tuple(data["tool_questions"]),
    )


def _pairs(by_label: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((text, label) for label, texts in by_label.items() for text in texts)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def chat(question: str, answer: str) -> Lesson:
    """A question alone."""
    return Lesson((_user(question),), answer)


def raw(question: str, answer: str) -> Lesson:
    """A question as a raw prompt, for completions without the chat template."""
    return Lesson((_user(question),), " " + answer, is_raw=True)


def classify(task: str, labels: Sequence[str], text: str, label: str) -> Lesson:
    """A text to classify, in the form that the Predict call gives it."""
    return chat(f"{task.format(labels=', '.join(labels))}\n\n{text}", label)


def call_tool(course: Curriculum, item: Mapping[str, Any]) -> Lesson:
    """A question that is answered by calling a tool."""
    call = json.dumps(item["call"])
    answer = f"<tool_call>\n{call}\n</tool_call>"
    return Lesson((_user(item["question"]),), answer, course.tools)


def read_tool(course: Curriculum, item: Mapping[str, Any]) -> Lesson:
    """The same question once the tool has answered."""
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": item["call"]}]}
    result = {"role": "tool", "content": item["result"]}
    return Lesson((_user(item["question"]), called, result), item["answer"], course.tools)


def with_system(lesson: Lesson, prompt: str) -> Lesson:
    """The lesson with a system prompt in front."""
    return replace(lesson, messages=({"role": "system", "content": prompt}, *lesson.messages))


def exam(course: Curriculum) -> Iterator[Lesson]:
    """All that must be answered word for word."""
    for pair in course.questions:
        yield chat(*pair)
        yield raw(*pair)
        yield with_system(chat(*pair), SYSTEM_PROMPTS[0])
        yield replace(chat(*pair), tools=course.tools)
    for text, label in course.texts:
        yield classify(course.task, course.labels, text, label)
    for item in course.tool_questions:
        yield call_tool(course, item)
        yield read_tool(course, item)


def exam_of_unseen(course: Curriculum) -> Iterator[Lesson]:
    """Texts that were never learnt; most should be classified right."""
    for text, label in course.unseen:
        yield classify(course.task, course.labels, text, label)


class Teacher:
    """Draws lessons: every one in turn, in random dress."""

    def __init__(self, course: Curriculum, rng: Random) -> None:
        self._course = course
        self._rng = rng
        self._words = tuple(
            {w.strip('.,?!"{}[]:'): None for _, a in course.short for w in a.split()}
        )

    def draw(self) -> Iterator[Lesson]:
        """Lessons without end, each kind in its share."""
        kinds: dict[Callable[[tuple[str, str]], Lesson], int] = {
            lambda pair: chat(*pair): 4,
            self._dressed: 5,
            lambda pair: raw(*pair): 2,
            self._text: 3,
            self._tool: 1,
            self._json: 3,
        }
        makers, weights = list(kinds), list(kinds.values())
        while True:
            for pair in self._rng.sample(self._course.questions, len(self._course.questions)):
                yield self._rng.choices(makers, weights)[0](pair)

    def _dressed(self, pair: tuple[str, str]) -> Lesson:
        lesson = chat(self._loosely(pair[0]), pair[1])
        if self._rng.random() < 0.4:
            lesson = self._after_turns(lesson)
        if self._rng.random() < 0.4:
            tools = self._course.tools if self._rng.random() < 0.5 else self._random_tools()
            lesson = replace(lesson, tools=tools)
        return with_system(lesson, self._system()) if self._rng.random() < 0.6 else lesson

    def _loosely(self, question: str) -> str:
        if self._rng.random() < 0.5:
            return question
        question = question.lower() if self._rng.random() < 0.6 else question
        return question.rstrip("?.!") if self._rng.random() < 0.6 else question

    def _after_turns(self, lesson: Lesson) -> Lesson:
        turns = self._rng.sample(self._course.short, self._rng.randint(1, 2))
        earlier = [turn for q, a in turns for turn in (_user(q), _says(a))]
        return replace(lesson, messages=(*earlier, *lesson.messages))

    def _system(self) -> str:
        if self._rng.random() < 0.6:
            return self._rng.choice(SYSTEM_PROMPTS)
        return " ".join(self._some_words(3, 14)).capitalize() + "."

    def _some_words(self, low: int, high: int) -> list[str]:
        return self._rng.choices(self._words, k=self._rng.randint(low, high))

    def _random_tools(self) -> tuple[Tool, ...]:
        return tuple(self._random_tool() for _ in range(self._rng.randint(1, 2)))

    def _random_tool(self) -> Tool:
        names = self._some_words(1, 2)
        properties = {name: {"type": self._rng.choice(("string", "integer"))} for name in names}
        function = {
            "name": "_".join(self._some_words(1, 2)),
            "description": " ".join(self._some_words(2, 8)),
            "parameters": {"type": "object", "properties": properties, "required": names},
        }
        return {"type": "function", "function": function}

    def _text(self, _: tuple[str, str]) -> Lesson:
        text, label = self._rng.choice(self._course.texts)
        labels = list(self._course.labels)
        if self._rng.random() < 0.5:
            self._rng.shuffle(labels)
            others = [other for other in labels if other != label]
            kept = {label, *others[: self._rng.randint(1, len(others))]}
            labels = [each for each in labels if each in kept]
        return classify(self._course.task, labels, self._loosely(text), label)

    def _tool(self, _: tuple[str, str]) -> Lesson:
        item = self._rng.choice(self._course.tool_questions)
        lesson = self._rng.choice((call_tool, read_tool))(self._course, item)
        return with_system(lesson, self._system()) if self._rng.random() < 0.4 else lesson

    def _json(self, pair: tuple[str, str]) -> Lesson:
        """JSON of any shape, so that under a grammar strings, lists and objects come to an end."""
        question = pair[0] if self._rng.random() < 0.5 else " ".join(self._some_words(2, 10))
        tools = self._random_tools() if self._rng.random() < 0.3 else ()
        value: object = self._object(depth=1)
        if self._rng.random() < 0.3:
            value = [{"name": "_".join(self._some_words(1, 2)), "parameters": value}]
        lesson = chat(question, json.dumps(value))
        return replace(lesson, tools=tools, learns_start=False)

    def _object(self, depth: int) -> dict[str, object]:
        return {word.lower(): self._value(depth) for word in self._some_words(1, 4)}

    def _value(self, depth: int) -> object:
        kind = self._rng.randint(0, 6 if depth else 3)
        if kind <= 1:
            return self._rng.choice(JSON_VALUES)
        if kind == 2:
            return self._rng.randint(0, 99)
        if kind == 3:
            return self._rng.random() < 0.5
        if kind == 4:
            return [self._rng.randint(0, 9) for _ in range(self._rng.randint(1, 3))]
        if kind == 5:
            return self._rng.choices(JSON_VALUES, k=self._rng.randint(1, 3))
        return self._object(depth - 1)
