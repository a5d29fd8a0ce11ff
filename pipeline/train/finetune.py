"""Finetune the next captioner and filter on human-annotated pairs (BLIP §3.3, §5.1, §5.2).

*Decoupled*, as in the paper, the captioner learns LM and the filter ITC + ITM, each from a copy of
the pre-trained network: together they would confirm each other's mistakes (BLIP §4.4, Table 4).
*Joint* trains one network with all three losses, and writes both roles out of it. Three more tasks
need annotations of their own: answers to questions (§5.3), statements about two pictures (§5.4) and
dialogues (§5.5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.blip.config import Role
from models.blip.framing import tokenize_batch
from models.blip.networks import CaptionNetwork, MatchNetwork, VqaNetwork
from models.blip.nlvr import NlvrNetwork
from models.blip.tokenizer import normalise_question
from models.checkpoints import folder as folders
from models.checkpoints.conversion import for_hugging_face, import_folder
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.transfer import transfer
from models.decoding.answering import Questions, vqa_loss
from models.roles.nlvr import nlvr_loss
from models.training.captioning import language_loss
from models.training.contrast import Pairs
from models.training.dialogue import Dialogue, compose_answered, match_loss
from models.training.finetuning import Across, NegativeCaptions, RetrievalNetwork, RetrievalSettings
from models.training.momentum import FeatureQueue
from models.training.pretraining import PretrainNetwork
from models.training.schedule import distillation_alpha
from pipeline.train.answer_negatives import DialogueConfig, wrong_answers
from pipeline.train.caption_negatives import CaptionNegatives, CaptionNegativesConfig
from pipeline.train.dataloader import Batch
from pipeline.train.loop import TrainConfig
from pipeline.train.mixture import TaskSource
from pipeline.train.objective import Objective, StepContext, TowerConfig, trainable
from pipeline.train.pretrain import LossConfig, PretrainObjective
from shards.training.annotation_file import Kind
from shards.training.source import Source, SourceConfig

Task = Literal["captioner", "filter", "retrieval", "joint", "vqa", "nlvr", "dialogue"]
PROMPT = "a picture of "
PROMPTED: tuple[Task, ...] = ("captioner", "joint")  # tasks with LM

_KINDS: dict[Task, Kind] = {"vqa": "questions", "nlvr": "statements", "dialogue": "dialogues"}
_FORMS: dict[Task, tuple[Role, type[nn.Module]]] = {
    "captioner": ("captioner", CaptionNetwork),
    "filter": ("filter", RetrievalNetwork),
    "retrieval": ("filter", RetrievalNetwork),
    "joint": ("pretrain", PretrainNetwork),
    "vqa": ("vqa", VqaNetwork),
    "nlvr": ("nlvr", NlvrNetwork),
    "dialogue": ("filter", MatchNetwork),
}


class StartConfig(TowerConfig):
    """The network that finetuning starts from: a pre-training folder, or one of the same role."""

    start: str
    image_size: int | None = Field(None, ge=1, description="pixels; null: as the start has it")


class QuestionsConfig(BaseModel):
    """Questions that a joint network learns to answer, in a share of its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    share: float = Field(0.25, gt=0, lt=1, description="of the steps")
    max_tokens: int = Field(35, ge=3, description="of a question, special tokens included")


class FinetuneConfig(TrainConfig):
    """All of a finetuning that changes its result."""

    task: Task
    model: StartConfig
    loss: LossConfig = LossConfig(ramp_epochs=1)
    prompt: str = Field(PROMPT, description="before each text that a captioner learns")
    across: Across = Field("everything", description="what comes from other workers' batches")
    captions: CaptionNegativesConfig | None = Field(None, description="more negatives of a filter")
    questions: QuestionsConfig | None = Field(None, description="that join in a joint finetuning")
    dialogue: DialogueConfig | None = Field(None, description="how answers are learned")

    @model_validator(mode="before")
    @classmethod
    def _name_the_way(cls, given: Any) -> Any:  # noqa: ANN401 - whatever YAML gives
        """Write down how dialogues are learned where it is left to us."""
        if isinstance(given, dict) and given.get("task") == "dialogue":
            return {**given, "dialogue": given.get("dialogue") or {}}
        return given

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.questions is not None and self.task != "joint":
            raise ValueError(f"questions join in a joint finetuning only, not in {self.task}")
        if self.captions is not None and self.task not in {"filter", "retrieval"}:
            raise ValueError(f"captions are negatives of a filter; leave them out for {self.task}")
        if self.dialogue is not None and self.task != "dialogue":
            raise ValueError(f"dialogue is for that task only; leave it out for {self.task}")
        return self

    @property
    def form(self) -> tuple[Role, type[nn.Module]]:
        """The role of the checkpoint that is trained, and its network in training."""
        if self.dialogue is not None and self.dialogue.by == "likelihood":
            return _FORMS["vqa"]
        return _FORMS[self.task]


class CaptionObjective(Objective):
    """LM of a captioner, which is given the prompt and does not learn it."""

    def __init__(self, network: CaptionNetwork, about: CheckpointContent, prompt: str) -> None:
        super().__init__(network, about)
        self._prompt = tuple(about.tokenizer.encode([prompt])[0])

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute LM."""
        network, words = self.network, self.about.tokenizer
        assert isinstance(network, CaptionNetwork)
        pairs = self.pairs(batch, moment.workers)
        ids, mask = pairs.with_prompt(words.dec_id, self._prompt)
        states = network.vision_model(pairs.pixels)
        prompt = len(self._prompt)
        loss = language_loss(
            network.text_decoder, ids, mask, states, prompt=prompt, workers=moment.workers
        )
        return {"loss": loss, "lm": loss}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the captioner."""
        return {"captioner": self.write(folder / "model", self.network)}


class RetrievalObjective(Objective):
    """ITC + ITM of a filter, which is a retrieval model too."""

    def __init__(
        self, network: RetrievalNetwork, about: CheckpointContent, config: FinetuneConfig
    ) -> None:
        super().__init__(network, about)
        self._loss, self._across = config.loss, config.across
        width = about.config.image_text_hidden_size
        self._beside = [FeatureQueue(width, config.loss.queue, ids=True)]
        self._captions, self._seed = config.captions, config.seed
        self._writer: CaptionNegatives | None = None

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute both losses and their sum."""
        loss = self._loss
        settings = RetrievalSettings(
            self.first_token,
            alpha=distillation_alpha(loss.alpha, moment.epoch, loss.ramp_epochs),
            momentum=moment.follow(loss.momentum),
            across=self._across,
        )
        pairs = self.pairs(batch, moment.workers)
        found = self.network(
            pairs,
            self.queue,
            settings,
            moment.generator,
            workers=moment.workers,
            captions=self._write(batch, moment.epoch, pairs),
        )
        parts = {"itc": found.itc, "itm": found.itm}
        return {"loss": found.total, **parts, "temperature": found.temperature}

    def _write(self, batch: Batch, epoch: float, pairs: Pairs) -> NegativeCaptions | None:
        """Let the captioner write, if there is one; it is loaded where the network is."""
        if self._captions is None:
            return None
        if self._writer is None:
            device = pairs.ids.device
            self._writer = CaptionNegatives(self._captions, self.about, self._seed, device)
        return self._writer.write(batch, epoch, pairs.ids.shape[1])

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the filter, without its momentum copies."""
        wanted = MatchNetwork(self.about.config)
        tensors = self.network.state_dict()
        wanted.load_state_dict({name: tensors[name] for name in wanted.state_dict()})
        return {"filter": self.write(folder / "model", wanted)}


class JointObjective(PretrainObjective):
    """ITC + ITM + LM of one network that is captioner and filter.

    A batch of questions, where some join in, has the loss of their answers instead.
    """

    def __init__(
        self, network: PretrainNetwork, about: CheckpointContent, config: FinetuneConfig
    ) -> None:
        super().__init__(network, about, config.loss, config.prompt)
        self._answers = config.questions is not None

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the losses of the batch's kind."""
        if not batch.chosen or not batch.chosen[0].answers:
            return super().forward(batch, moment)
        assert isinstance(self.network, PretrainNetwork)
        loss = answer_loss(self, self.network, batch, moment)
        return {"loss": loss, "answers": loss}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the whole, and captioner, filter and what answers out of it."""
        found = {**super().export(folder)}
        whole = import_folder(found["pretrain"]).content
        roles: tuple[Role, ...] = ("captioner", "filter", "vqa")
        for role in roles if self._answers else roles[:2]:
            found[role] = folder / role
            if not found[role].exists():
                part = transfer(whole, role, 0) if role == "vqa" else for_hugging_face(whole, role)
                folders.write_new(found[role], part)
        return found


class AnswerObjective(Objective):
    """The likelihood of a question's answers, each as heavy as its share of those who answered."""

    clean = staticmethod(normalise_question)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the loss of the answers."""
        assert isinstance(self.network, VqaNetwork)
        loss = answer_loss(self, self.network, batch, moment)
        return {"loss": loss, "answers": loss}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the model that answers."""
        return {"vqa": self.write(folder / "model", self.network)}


class DialogueObjective(Objective):
    """ITM of a dialogue with its true answer, and with wrong ones, in sight of the picture."""

    clean = staticmethod(normalise_question)

    def __init__(
        self, network: MatchNetwork, about: CheckpointContent, config: FinetuneConfig
    ) -> None:
        super().__init__(network, about)
        assert config.dialogue is not None
        self._wrong = config.dialogue.wrong
        self._most = config.data.max_tokens
        for unused in (network.vision_proj, network.text_proj):  # ITC's
            unused.requires_grad_(False)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute ITM, and the share of questions whose true answer scores highest."""
        network, words = self.network, self.about.tokenizer
        assert isinstance(network, MatchNetwork)
        seed = int(torch.randint(1 << 62, (1,), generator=moment.generator))
        pieces, counted = [], []
        drawn = wrong_answers(batch.chosen, self._wrong, seed)
        for text, wrong in zip(batch.chosen, drawn, strict=True):
            lacking = self._wrong - len(wrong)
            answers = [text.answers[0].text, *wrong, *[""] * lacking]
            dialogue = Dialogue(text.caption or "", text.rounds, text.text)
            pieces += compose_answered(words, self._most, dialogue, answers)
            counted.append([1.0] * (1 + len(wrong)) + [0.0] * lacking)
        pixels = self.normalise(batch.pixels)
        framed = tokenize_batch(pieces, words, self.first_token, self._most, pixels.device)
        weights = torch.tensor(counted, device=pixels.device)
        images = network.vision_model(pixels)
        loss, found = match_loss(network, framed, images, weights, moment.workers)
        return {"loss": loss, "itm": loss, "accuracy": found}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the model that ranks, which has the form of a filter."""
        return {"filter": self.write(folder / "model", self.network)}


class ReasonObjective(Objective):
    """Whether a statement about two pictures is true."""

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the cross-entropy, and the share of statements that are judged right."""
        network, pairs = self.network, self.pairs(batch, moment.workers)
        assert isinstance(network, NlvrNetwork)
        assert batch.right is not None
        pixels = torch.cat([pairs.pixels, self.normalise(batch.right)])
        left, right = network.vision_model(pixels).chunk(2)
        ids = pairs.with_first_token(self.about.tokenizer.enc_id)
        logits = network(ids, pairs.mask, left, right)
        labels = torch.tensor([int(bool(text.label)) for text in batch.chosen], device=ids.device)
        judged_right = (logits.argmax(-1) == labels).float().mean()
        loss = nlvr_loss(logits, labels)
        return {"loss": loss, "statements": loss, "accuracy": judged_right}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the model that reasons."""
        return {"nlvr": self.write(folder / "model", self.network)}


def answer_loss(
    objective: Objective, network: VqaNetwork | PretrainNetwork, batch: Batch, moment: StepContext
) -> Tensor:
    """Compute the loss of a batch's answers."""
    pairs, about = objective.pairs(batch, moment.workers), objective.about
    ids, words = pairs.with_first_token(objective.first_token), about.tokenizer
    hidden = network.questions(ids, pairs.mask, network.vision_model(pairs.pixels))
    counts = torch.tensor([len(text.answers) for text in batch.chosen], device=ids.device)
    answers = [answer for text in batch.chosen for answer in text.answers]
    weights = torch.tensor([answer.weight for answer in answers], device=ids.device)
    limit = about.config.text_config.max_position_embeddings
    pieces = words.encode([answer.text for answer in answers])
    framed = tokenize_batch(pieces, words, words.dec_id, limit, ids.device)
    return vqa_loss(network, Questions(hidden, pairs.mask), framed, counts, weights)


def questions_beside(config: FinetuneConfig, questions: Sequence[Source]) -> TaskSource | None:
    """Give the course of questions that joins in, if there is one."""
    given = config.questions
    if given is None:
        return None
    return TaskSource(questions, given.max_tokens, normalise_question, given.share)


def check_sources(task: Task, sources: Sequence[Source]) -> None:
    """Raise ValueError unless the sources are of the kind that the task learns from."""
    wanted = _KINDS.get(task, "captions")
    for source in sources:
        if source.kind != wanted:
            raise ValueError(
                f"{task} learns from {wanted}; {source.name} has {source.kind}. Name a source of "
                f"{wanted}: `annotations`, a JSON file in the form of its data set"
            )


def start_finetuning(config: FinetuneConfig) -> Objective:
    """Load what a finetuning starts from; CheckpointError if it cannot become the task's."""
    role, kind = config.form
    content = import_folder(Path(config.model.start), config.model.image_size).content
    if content.role != role:
        content = _part(content, role, config.seed)
    network = trainable(kind, content, config.model)
    if isinstance(network, VqaNetwork):
        return AnswerObjective(network, content)
    if isinstance(network, NlvrNetwork):
        return ReasonObjective(network, content)
    if isinstance(network, PretrainNetwork):
        return JointObjective(network, content, config)
    if isinstance(network, RetrievalNetwork):
        return RetrievalObjective(network, content, config)
    if isinstance(network, MatchNetwork):
        return DialogueObjective(network, content, config)
    assert isinstance(network, CaptionNetwork)
    return CaptionObjective(network, content, config.prompt)


def _part(whole: CheckpointContent, role: Role, seed: int) -> CheckpointContent:
    """Take a role out of a pre-training checkpoint.

    A filter goes on with temperature and momentum copies as they are, as in the original: copies
    of what is trained would teach nothing at first, and another temperature shakes ITC.
    """
    if role == "vqa" or role == "nlvr":
        return transfer(whole, role, seed)
    part = for_hugging_face(whole, role)
    if role != "filter":
        return part
    kept = {
        name: tensor
        for name, tensor in whole.tensors.items()
        if name == "temp" or name.partition(".")[0].endswith("_m")
    }
    return replace(part, tensors={**part.tensors, **kept})
