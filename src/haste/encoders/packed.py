"""BERT-like encoders on documents that lie end to end: no padding, few passes over activations.

The weights are those of transformers' modules, which also say what is to come out. Each layer's gradient
is written out here, for three reasons: what is kept for the backward pass is chosen, tensor by tensor;
what is computed again draws the same dropout inside a CUDA graph, where no generator can be set back; and
gradients of weights are written to where the optimiser reads them, so that all of them are in memory once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from haste.encoders.base import SPARE
from haste.encoders.transformer import TransformerEncoder, refuse_weights
from haste.kernels.packed_attention import (
    LONGEST,
    Attended,
    Documents,
    attend,
    attend_backward,
    can_attend,
)
from haste.kernels.residual import Dropout, add_norm, gelu_backward, norm_backward

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer, BertModel
    from transformers.models.mpnet.modeling_mpnet import (
        MPNetEmbeddings,
        MPNetEncoder,
        MPNetLayer,
        MPNetModel,
    )
    from transformers.models.roberta.modeling_roberta import (
        RobertaEmbeddings,
        RobertaLayer,
        RobertaModel,
    )

KINDS = ("bert", "mpnet", "roberta")
"""`model_type` of transformers' configurations whose layers are computed here"""
DROPOUTS = 3
"""in a layer"""
NO_DROPOUT = Dropout(0.0, None, 0)


def can_pack(
    model: PreTrainedModel, max_len: int
) -> TypeGuard[BertModel | MPNetModel | RobertaModel]:
    """Whether a model of transformers can be computed on documents of at most `max_len` tokens that lie end to end,
    where it is. MPNet's relative positions are for short ones."""
    config = model.config
    return (
        config.model_type in KINDS
        and (max_len <= LONGEST or not _has_relative_positions(model))
        and config.hidden_act == "gelu"
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
        and can_attend(config.hidden_size // config.num_attention_heads, model.dtype, model.device)
    )


def _has_relative_positions(model: PreTrainedModel) -> bool:
    return bool(model.config.model_type == "mpnet")


class PackedEncoder(TransformerEncoder):
    """As a TransformerEncoder of the same model, without padding.

    The gradients of the layers' weights are no business of autograd: a backward pass overwrites the
    `grad` of those parameters (see `written_gradients`), and hooks on them are not called. With
    `gradient_checkpointing` a layer keeps two tensors [T, H] instead of some sixteen.
    """

    packed = True
    model: BertModel | MPNetModel | RobertaModel

    def __init__(
        self,
        model: BertModel | MPNetModel | RobertaModel,
        pooling: str,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        """`model`: one that `can_pack`."""
        super().__init__(model, pooling)
        # it computes attention itself, without a mask
        self.capturable = True
        self.gradient_checkpointing = gradient_checkpointing

    def forward(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        longest: int | None = None,
    ) -> Tensor:
        """See Encoder."""
        refuse_weights(weights)
        lengths = offsets.diff()
        longest = int(lengths.max()) if longest is None else longest
        # padding is extra documents: every token attends to something
        spare = offsets[-1:] + longest * torch.arange(1, SPARE + 1, device=ids.device)
        bounds = torch.cat([offsets, spare.clamp_(max=len(ids))]).int()
        seed = None
        if self.training:
            seed = torch.randint(2**62, (1,), device=ids.device)
        bias = self._bias(ids, longest)
        run = _Run(
            [_Layer.of(layer) for layer in self.model.encoder.layer],
            self.model.embeddings,
            partial(self._embedded, ids.long(), self._places(ids, bounds)),
            Documents(bounds, longest),
            None if bias is None else bias.detach(),
            seed,
            kept=torch.is_grad_enabled(),
            again=self.gradient_checkpointing,
        )
        hidden = _Layers.apply(run.embedded(), bias, run)
        if self.pooling == "cls":
            # a document without tokens begins where the next one does, or behind the last token
            first = hidden[offsets[:-1].long().clamp_(max=len(ids) - 1)]
            return first * (lengths > 0)[:, None]
        token = torch.arange(len(ids), device=ids.device)
        in_document = (token >= offsets[:-1, None]) & (token < offsets[1:, None])
        # a product sums in a fixed order, and its gradient is one, too
        return (in_document.to(hidden.dtype) @ hidden) / lengths.clamp(min=1).to(hidden.dtype)[
            :, None
        ]

    def written_gradients(self) -> Iterable[nn.Parameter]:
        """See Encoder."""
        norm = self.model.embeddings.LayerNorm
        return itertools.chain(self.model.encoder.layer.parameters(), norm.parameters())

    def _bias(self, ids: Tensor, longest: int) -> Tensor | None:
        """[heads, S, S]: of relative positions in documents of S tokens, where the model has them."""
        if not _has_relative_positions(self.model):
            return None
        encoder = cast("MPNetEncoder", self.model.encoder)
        place = torch.arange(longest, device=ids.device)
        # not by compute_position_bias: in transformers before 5.23 that computes on the host
        bucket = encoder.relative_position_bucket(place - place[:, None])
        return encoder.relative_attention_bias(bucket).permute(2, 0, 1).contiguous()

    def _places(self, ids: Tensor, bounds: Tensor) -> Tensor:
        """int64 [T]: rows of the embeddings of positions."""
        token = torch.arange(len(ids), dtype=torch.int32, device=ids.device)
        document = torch.searchsorted(bounds[1:], token, right=True).clamp_(max=len(bounds) - 2)
        place = (token - bounds[document]).long()
        if self.model.config.model_type != "bert":
            place = place + (self.model.embeddings.position_embeddings.padding_idx + 1)
        return place

    def _embedded(self, ids: Tensor, places: Tensor) -> Tensor:
        """[T, H]: sums of embeddings."""
        embeddings = self.model.embeddings
        hidden = embeddings.word_embeddings(ids)
        types = getattr(embeddings, "token_type_embeddings", None)
        if types is not None:
            hidden = hidden + types.weight[0]
        return hidden + embeddings.position_embeddings(places)


@dataclass(frozen=True)
class _Layer:
    """The modules of a layer of transformers."""

    query_key_value: tuple[nn.Linear, nn.Linear, nn.Linear]
    heads: int
    after_attention: nn.Linear
    attention_norm: nn.LayerNorm
    inner: nn.Linear
    outer: nn.Linear
    norm: nn.LayerNorm
    attention_dropout: float
    dropout: float

    @classmethod
    def of(cls, layer: BertLayer | MPNetLayer | RobertaLayer) -> _Layer:
        attention = getattr(layer.attention, "attn", None)
        if attention is None:
            attention, output = layer.attention.self, layer.attention.output
            projections = attention.query, attention.key, attention.value
            after = output.dense
        else:
            # MPNet
            output = layer.attention
            projections, after = (attention.q, attention.k, attention.v), attention.o
        return cls(
            projections,
            attention.num_attention_heads,
            after,
            output.LayerNorm,
            layer.intermediate.dense,
            layer.output.dense,
            layer.output.LayerNorm,
            attention.dropout.p,
            output.dropout.p,
        )

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weight [3H, H] and bias [3H] of query, key and value."""
        return (
            _joined([projection.weight for projection in self.query_key_value]),
            _joined([projection.bias for projection in self.query_key_value]),
        )

    def project(self, x: Tensor) -> Tensor:
        """[T, 3, heads, D]: query, key and value."""
        return F.linear(x, *self.weights()).view(len(x), 3, self.heads, -1)


@dataclass(frozen=True)
class _Run:
    """A pass over the layers."""

    layers: Sequence[_Layer]
    embeddings: BertEmbeddings | MPNetEmbeddings | RobertaEmbeddings
    embedded: Callable[[], Tensor]
    """[T, H]: sums of embeddings, which are small to compute again"""
    documents: Documents
    bias: Tensor | None
    """of attention, see `attend`"""
    seed: Tensor | None
    """of dropout; None for none"""
    kept: bool
    """whether there will be a backward pass"""
    again: bool
    """whether that computes again what it can"""

    def dropout(self, number: int, which: int) -> Dropout:
        """The dropout of a layer: 0 on attention's weights, 1 after attention, 2 at the end."""
        layer = self.layers[number]
        p = layer.dropout if which else layer.attention_dropout
        return Dropout(0.0 if self.seed is None else p, self.seed, DROPOUTS * number + which)


@dataclass
class _Kept:
    """What a layer keeps for the backward pass; None for what is computed again."""

    attended: Attended
    z: Tensor | None
    """before the last norm, whose result is what the next layer reads"""
    qkv: Tensor | None = None
    middle: tuple[Tensor, Tensor] | None = None
    """before and after the norm that follows attention"""
    inner: Tensor | None = None
    """before the activation"""


class _Layers(torch.autograd.Function):
    """From sums of embeddings to what the last layer gives, both [T, H]."""

    @staticmethod
    def forward(ctx: Any, embedded: Tensor, bias: Tensor | None, run: _Run) -> Tensor:  # noqa: ARG004, for its gradient
        x = _norm(embedded, run.embeddings.LayerNorm)
        p = run.embeddings.dropout.p
        ctx.passed = None
        if run.seed is not None and p:
            x, ctx.passed = torch.native_dropout(x, p, True)
        ctx.run, ctx.kept = run, []
        for number in range(len(run.layers)):
            x, kept = _forward(x, run, number)
            if run.kept:
                ctx.kept.append(kept)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        run, kept, passed = ctx.run, ctx.kept, ctx.passed
        if not kept:
            raise RuntimeError("packed layers: a second backward pass; what it would read is gone.")
        embeddings = run.embeddings
        boost = 1 / (1 - embeddings.dropout.p)
        gradient = gradient.contiguous()
        d_bias = None if run.bias is None else torch.zeros_like(run.bias, dtype=torch.float32)
        for number in reversed(range(1, len(run.layers))):
            of_layer = kept.pop()
            x = _norm(kept[-1].z, run.layers[number - 1].norm)
            gradient = _backward(gradient, x, of_layer, run, number, d_bias)
        embedded = run.embedded()
        x = _norm(embedded, embeddings.LayerNorm)
        if passed is not None:
            x = torch.ops.aten.native_dropout_backward(x, passed, boost)
        gradient = _backward(gradient, x, kept.pop(), run, 0, d_bias)
        if passed is not None:
            gradient = torch.ops.aten.native_dropout_backward(gradient, passed, boost)
        norm = embeddings.LayerNorm
        # of a sum with nothing: the third gradient is that of no parameter
        gradients = [_gradient(norm.weight), _gradient(norm.bias), torch.empty_like(norm.bias)]
        d_embedded = norm_backward(gradient, embedded, norm, NO_DROPOUT, gradients)[0]
        return d_embedded, None if d_bias is None else d_bias.to(run.bias.dtype), None


def _norm(z: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(z, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _forward(x: Tensor, run: _Run, number: int) -> tuple[Tensor, _Kept]:
    """A layer's result [T, H] from what it reads, and what it keeps."""
    layer = run.layers[number]
    qkv = layer.project(x)
    attended = attend(qkv, run.documents, run.dropout(number, 0), run.bias)
    kept = _Kept(attended, None)
    if not run.again:
        kept.qkv = qkv
    del qkv
    before, middle = _after_attention(x, attended, run, number)
    if not run.again:
        kept.middle = before, middle
    del before
    inner = F.linear(middle, layer.inner.weight, layer.inner.bias)
    if not run.again:
        kept.inner = inner
    inner = torch.ops.aten.gelu_(inner) if run.again else F.gelu(inner)
    outer = F.linear(inner, layer.outer.weight, layer.outer.bias)
    del inner
    kept.z, result = add_norm(middle, outer, layer.norm, run.dropout(number, 2))
    return result, kept


def _after_attention(
    x: Tensor, attended: Attended, run: _Run, number: int
) -> tuple[Tensor, Tensor]:
    layer = run.layers[number]
    dense = layer.after_attention
    a = F.linear(attended.out.flatten(1), dense.weight, dense.bias)
    return add_norm(x, a, layer.attention_norm, run.dropout(number, 1))


def _backward(
    dy: Tensor, x: Tensor, kept: _Kept, run: _Run, number: int, d_bias: Tensor | None
) -> Tensor:
    """The gradient of what a layer reads, x, from that of its result; those of its weights are written, that of
    attention's bias is added to `d_bias`.

    `dy` and what was kept are overwritten.
    """
    layer = run.layers[number]
    assert kept.z is not None, "a layer is gone through once"
    dz, dropped = norm_backward(
        dy, kept.z, layer.norm, run.dropout(number, 2), _gradients(layer.norm, layer.outer)
    )
    # large tensors are let go as soon as they were read for the last time
    kept.z = None
    del dy
    z, middle = kept.middle or _after_attention(x, kept.attended, run, number)
    inner, kept.middle = kept.inner, None
    if inner is None:
        inner = F.linear(middle, layer.inner.weight, layer.inner.bias)
    kept.inner = None
    d_inner, inner = gelu_backward(
        inner, torch.mm(dropped, layer.outer.weight), _gradient(layer.inner.bias)
    )
    _product(dropped, inner, layer.outer)
    del inner
    _product(d_inner, middle, layer.inner)
    d_middle = dz.addmm_(d_inner, layer.inner.weight)
    del d_inner, middle, dz
    buffer = dropped
    dz, dropped = norm_backward(
        d_middle,
        z,
        layer.attention_norm,
        run.dropout(number, 1),
        _gradients(layer.attention_norm, layer.after_attention),
    )
    del d_middle, z
    out = kept.attended.out
    _product(dropped, out.flatten(1), layer.after_attention)
    d_out = torch.mm(dropped, layer.after_attention.weight, out=buffer).view_as(out)
    del dropped, buffer
    qkv = layer.project(x) if kept.qkv is None else kept.qkv
    d_qkv = attend_backward(
        qkv, run.documents, run.dropout(number, 0), kept.attended, d_out, run.bias, d_bias
    )
    del d_out, qkv, out
    d_qkv = d_qkv.flatten(1)
    _write(
        [projection.weight for projection in layer.query_key_value],
        lambda out: torch.mm(d_qkv.t(), x, out=out),
    )
    _write(
        [projection.bias for projection in layer.query_key_value],
        lambda out: torch.sum(d_qkv, 0, out=out),
    )
    return dz.addmm_(d_qkv, layer.weights()[0])


def _product(gradient: Tensor, x: Tensor, to: nn.Linear) -> None:
    """The gradient of a weight, from that of the result [T, M] of inputs x [T, N]."""
    torch.mm(gradient.t(), x, out=_gradient(to.weight))


def _gradient(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter is written."""
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


def _gradients(norm: nn.LayerNorm, linear: nn.Linear) -> list[Tensor]:
    return [_gradient(parameter) for parameter in (norm.weight, norm.bias, linear.bias)]


def _write(parameters: Sequence[Tensor], compute: Callable[[Tensor], Tensor]) -> None:
    """Write gradients of parameters of which `compute` fills one array, one after the other."""
    gradients = [_gradient(parameter) for parameter in parameters]
    whole = _adjacent(gradients)
    if whole is not None:
        compute(whole)
        return
    parts = compute(torch.cat(gradients)).split([len(gradient) for gradient in gradients])
    torch._foreach_copy_(gradients, list(parts))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one, along their first dimension; without a copy where they lie end to end."""
    whole = _adjacent(tensors)
    return torch.cat(list(tensors)) if whole is None else whole


def _adjacent(tensors: Sequence[Tensor]) -> Tensor | None:
    """A view of tensors that lie end to end in memory, as those of an optimiser's one parameter do."""
    first = tensors[0].detach()
    for before, after in itertools.pairwise(tensors):
        end = before.data_ptr() + before.numel() * before.element_size()
        same = before.untyped_storage().data_ptr() == after.untyped_storage().data_ptr()
        if not (
            same and before.is_contiguous() and after.is_contiguous() and end == after.data_ptr()
        ):
            return None
    size = (sum(len(tensor) for tensor in tensors), *first.shape[1:])
    return first.as_strided(size, first.stride())
