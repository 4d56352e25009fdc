"""Measures understanding, on the examples and on public data: `python -m e2e.load.intent_data` (make bench-intent).

The examples are taken through `chatflow evaluate` with their own test questions. For the public data it
trains with the product's defaults on Banking77's training split and on CLINC150's training and validation splits.
Hyper-parameters were chosen on those splits too; calibration is cross-validated and needs none of its own. The test
splits are read here alone. A question counts as right when the most probable class, out-of-scope being one of them, is
its own. Every bar is printed with pass or fail.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from chatflow_cli.local.preparation import Options
from chatflow_cli.measures import measure as measure_judged
from chatflow_cli.trial import run_trial
from chatflow_models.intent import Encoder, IntentModel, load_encoder
from chatflow_models.training import Evaluation, Example, evaluate, train
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = ("shop-support", "saas-support")
THRESHOLD = 0.85
SOURCES = {
    "clinc150/data_full.json": "https://github.com/clinc/oos-eval (data/data_full.json, CC BY 3.0)",
    "banking77/train.csv": "https://github.com/PolyAI-LDN/task-specific-datasets (banking_data, CC BY 4.0)",
    "banking77/test.csv": "https://github.com/PolyAI-LDN/task-specific-datasets (banking_data, CC BY 4.0)",
}
BATCH = 64
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and its limit."""

    name: str
    value: float
    limit: float
    is_upper: bool

    @property
    def holds(self) -> bool:
        return self.value <= self.limit if self.is_upper else self.value >= self.limit

    def __str__(self) -> str:
        verdict, sign = ("pass" if self.holds else "FAIL"), ("<=" if self.is_upper else ">=")
        return f"{verdict}  {self.name:62s} {self.value:9.4f}  {sign} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Splits:
    """Training and test questions of one data set."""

    train: list[Example]
    test: list[Example]


def clinc(folder: Path) -> Splits:
    data = json.loads((folder / "clinc150/data_full.json").read_text(encoding="utf-8"))

    def examples(*names: str) -> list[Example]:
        return [
            Example(text, OUT_OF_SCOPE if intent == "oos" else intent) for name in names for text, intent in data[name]
        ]

    return Splits(examples("train", "oos_train", "val", "oos_val"), examples("test", "oos_test"))


def banking(folder: Path) -> Splits:
    def examples(name: str) -> list[Example]:
        with (folder / "banking77" / name).open(encoding="utf-8", newline="") as stream:
            return [Example(row["text"], row["category"]) for row in csv.DictReader(stream)]

    return Splits(examples("train.csv"), examples("test.csv"))


def figures_of(model: IntentModel, test: Sequence[Example]) -> Evaluation:
    """Figures over test questions; an alternative's probability is not needed beyond the best intent's."""
    column = {label: i for i, label in enumerate((*model.labels, OUT_OF_SCOPE))}
    probabilities = np.zeros((len(test), len(column)), dtype=np.float32)
    for start in range(0, len(test), BATCH):
        batch = test[start : start + BATCH]
        for row, found in enumerate(model.predict([example.text for example in batch]), start):
            probabilities[row, column[found.intent]] = found.confidence
            probabilities[row, -1] = found.out_of_scope
    return evaluate(probabilities, np.array([column[example.intent] for example in test]), THRESHOLD)


def trained(name: str, examples: Sequence[Example], encoder: Encoder, folder: Path) -> IntentModel:
    """A model, trained and loaded again; says how long it took."""
    started, cpu_started = time.perf_counter(), time.process_time()
    report = train(examples, encoder, folder / f"{name}-{encoder.name}", threshold=THRESHOLD)
    elapsed_s = time.perf_counter() - started
    print(
        f"{name}, encoder {encoder.name}: trained on {len(examples)} examples in {elapsed_s:.1f} s"
        f" ({time.process_time() - cpu_started:.1f} s of processor time);"
        f" cross-validated accuracy {report.evaluation.accuracy:.4f},"
        f" calibration error {report.evaluation.calibration_error:.4f}",
        flush=True,
    )
    return IntentModel.load(folder / f"{name}-{encoder.name}", encoder)


def cpu_us(model: IntentModel, texts: Sequence[str], batch: int) -> float:
    """Processor time a text, in microseconds: the best of several passes."""
    passes = []
    for _ in range(REPEATS):
        started = time.process_time()
        for start in range(0, len(texts), batch):
            model.predict(texts[start : start + batch])
        passes.append(time.process_time() - started)
    return min(passes) / len(texts) * 1e6


def chinese_examples() -> list[Example]:
    """Questions of a made-up shop, 15 intents of 12 each, for timing alone."""
    topics = [
        "退款",
        "物流",
        "发票",
        "优惠券",
        "换货",
        "地址",
        "会员",
        "支付",
        "库存",
        "保修",
        "安装",
        "积分",
        "账号",
        "评价",
        "预售",
    ]
    frames = (
        "我的{}为什么一直没有处理好呢",
        "请问{}的事情应该找谁来办理呢",
        "{}申请提交之后要等多久才有结果",
        "怎么样才能快一点办好{}这件事情",
        "手机上面在哪里可以看到{}的进度",
        "昨天问过{}到今天还没有人回复我",
    )
    polite = ("", "你好，")
    return [Example(start + frame.format(topic), topic) for topic in topics for frame in frames for start in polite]


def example_bars(flow: str, folder: Path) -> list[Bar]:
    """The figures of `chatflow evaluate` on an example."""
    options = Options(file=EXAMPLES / flow, data=folder)
    found = measure_judged(run_trial(options, None, print))
    limits = {
        "intent_accuracy": 0.92,
        "precision_above_threshold": 0.97,
        "found_at_1": 0.88,
        "found_at_5": 0.97,
        "out_of_scope_held_back": 0.85,
    }
    figures = asdict(found)
    return [
        Bar(f"{flow} {name.replace('_', ' ')}", figures[name], limit, is_upper=False) for name, limit in limits.items()
    ]


def clinc_bars(splits: Splits, encoder: Encoder, folder: Path) -> list[Bar]:
    model = trained("clinc150", splits.train, encoder, folder)
    found = figures_of(model, splits.test)
    leak = found.out_of_scope_leak
    return [
        Bar("CLINC150 in-scope accuracy", found.accuracy, 0.955, is_upper=False),
        Bar("CLINC150 calibration error (15 bins, in-scope)", found.calibration_error, 0.02, is_upper=True),
        Bar("CLINC150 in-scope questions above 0.85", found.coverage, 0.88, is_upper=False),
        Bar("CLINC150 out-of-scope questions above 0.85", 1.0 if leak is None else leak, 0.08, is_upper=True),
    ]


def banking_bars(splits: Splits, encoder: Encoder, folder: Path) -> list[Bar]:
    model = trained("banking77", splits.train, encoder, folder)
    found = figures_of(model, splits.test)
    print_cost("default mode, English of 60 characters", model, english_texts(splits)[:50])
    return [
        Bar("Banking77 accuracy", found.accuracy, 0.93, is_upper=False),
        Bar("Banking77 precision above 0.85", found.precision, 0.975, is_upper=False),
        Bar("Banking77 questions above 0.85", found.coverage, 0.83, is_upper=False),
    ]


def english_texts(splits: Splits) -> list[str]:
    """Test questions of about 60 characters."""
    return [example.text for example in splits.test if 55 <= len(example.text) <= 65]


def time_light(splits: Splits | None, folder: Path) -> list[Bar]:
    """Light mode, for information: accuracy and processor time."""
    light = load_encoder("none")
    examples = chinese_examples()
    model = trained("chinese", examples, light, folder)
    print_cost("light mode, Chinese of 15 characters", model, [e.text for e in examples if 14 <= len(e.text) <= 16])
    if splits is not None:
        model = trained("banking77", splits.train, light, folder)
        print(f"Banking77 in light mode: test accuracy {figures_of(model, splits.test).accuracy:.4f}")
        print_cost("light mode, English of 60 characters", model, english_texts(splits))
    return []


def print_cost(what: str, model: IntentModel, texts: Sequence[str]) -> None:
    """Processor time a text."""
    print(f"{what}: {cpu_us(model, texts, 1):.0f} us a text, {cpu_us(model, texts, 16):.0f} in batches of 16")


def present(folder: Path, *names: str) -> bool:
    """Whether files are there; says in one line what is left out when they are not."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        print(f"left out: {folder / missing[0]} is missing; get it from {SOURCES[missing[0]]}")
    return not missing


def measure(data: Path) -> list[Bar]:
    """All bars that the data at hand allows."""
    encoder = load_encoder("universal")
    bars: list[Bar] = []
    runs: list[Callable[[Path], list[Bar]]] = [partial(example_bars, flow) for flow in FLOWS]
    splits = banking(data) if present(data, "banking77/train.csv", "banking77/test.csv") else None
    runs.append(lambda folder: time_light(splits, folder))
    if splits is not None:
        held = splits
        runs.append(lambda folder: banking_bars(held, encoder, folder))
    if present(data, "clinc150/data_full.json"):
        runs.append(lambda folder: clinc_bars(clinc(data), encoder, folder))
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            bars += run(Path(folder))
    return bars


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the bars; 1 when one of them does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    parser.add_argument("--json", type=Path, help="write the bars to this file too")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    # One BLAS thread makes processor time comparable.
    with threadpool_limits(limits=1):
        bars = measure(options.data)
    elapsed_s = time.perf_counter() - started
    print("\n".join(map(str, bars)))
    print(f"{sum(bar.holds for bar in bars)} of {len(bars)} bars hold, {elapsed_s:.0f} s in all")
    if options.json:
        figures = {"bars": [asdict(bar) | {"holds": bar.holds} for bar in bars], "wall_s": round(elapsed_s, 1)}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(bar.holds for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
