"""kokoro.py IN.onnx OUT.safetensors: Kokoro's weights out of its ONNX export in 8 bits, under the names that it was trained with.

What stood quantized is written as the float32 that it stands for. An export forgets some names: such a weight gets the name of the
node that uses it. Convolutions that were trained with their norm apart (`weight_g`, the norm; `weight_v`, the direction) are taken
apart again; matrices are [outputs, inputs]; the gates of an LSTM stand in PyTorch's order.
"""

import re
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

graph = onnx.load(sys.argv[1]).graph
stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
weights = {}


def parameter(name):
    """The export wrapped the model in an encoder and a decoder, of which the first took the parts of the predictor."""
    name = re.sub(r"^encoder\.(?=(shared|F0|N|F0_proj|N_proj)(\.|$))", "encoder.predictor.", name)
    return name.split(".", 1)[1]


def module(node):
    """Where in the model a node stands: its path without the operator, and without a list when the list's item follows. A module that
    is used again has a number behind its name: the same weights."""
    parts = node.name.strip("/").split("/")[:-1]
    kept = [part for part, after in zip(parts, parts[1:] + [""]) if not after.startswith(part + ".")]
    return ".".join(kept).removesuffix(".Gemm")


def dequantized(weight, scale, zero, axis=None):
    """(weight - zero) * scale; along `axis`, if there is a scale for each of its places."""
    numbers, scale, zero = (stored[name].astype(np.float32) for name in (weight, scale, zero))
    if axis is not None:
        shape = [-1 if place == axis else 1 for place in range(numbers.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (numbers - zero) * scale


def scale_of(weight):
    return weight.removesuffix("_quantized") + "_scale"


def add_convolution(node, weight, numbers):
    # One that has kept its name was not taken apart in training.
    if re.fullmatch(r"[\w.]+\.weight_quantized", weight):
        weights[parameter(weight.removesuffix("_quantized"))] = numbers
        return
    name = parameter(module(node))
    weights[name + ".weight_v"] = numbers
    weights[name + ".weight_g"] = np.sqrt((numbers**2).sum(tuple(range(1, numbers.ndim)), keepdims=True))


def add_lstm(node):
    def pytorch(gates):
        i, o, f, c = np.split(gates, 4)
        return np.concatenate([i, f, c, o])

    # [directions, inputs, gates] -> [directions, gates, inputs]; a scale for each direction.
    inputs = dequantized(node.input[1], node.input[8], node.input[9], 0).transpose(0, 2, 1)
    hidden = dequantized(node.input[2], node.input[10], node.input[11], 0).transpose(0, 2, 1)
    biases = stored[node.input[3]]
    name = parameter(module(node))
    for direction, suffix in enumerate(("", "_reverse")):
        input_bias, hidden_bias = np.split(biases[direction], 2)
        weights[f"{name}.weight_ih_l0{suffix}"] = pytorch(inputs[direction])
        weights[f"{name}.weight_hh_l0{suffix}"] = pytorch(hidden[direction])
        weights[f"{name}.bias_ih_l0{suffix}"] = pytorch(input_bias)
        weights[f"{name}.bias_hh_l0{suffix}"] = pytorch(hidden_bias)


for node in graph.node:
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight not in stored or "istft" in node.name:
        continue
    match node.op_type:
        case "Conv" | "ConvTranspose":
            add_convolution(node, weight, stored[weight])
        case "ConvInteger":
            add_convolution(node, weight, dequantized(weight, scale_of(weight), node.input[3]))
        case "MatMul" if stored[weight].ndim == 2:
            weights[parameter(module(node)) + ".weight"] = stored[weight].T
        case "MatMulInteger":
            name = re.sub(r"_\d+$", "", parameter(module(node)))
            weights.setdefault(name + ".weight", dequantized(weight, scale_of(weight), node.input[3], 1).T)
        case "DynamicQuantizeLSTM":
            add_lstm(node)

# The embeddings are looked up before they are dequantized.
for gather in graph.node:
    if gather.op_type == "Gather" and gather.input[0].endswith(".weight_quantized"):
        (used,) = (node for node in graph.node if gather.output[0] in node.input)
        name = gather.input[0].removesuffix("_quantized")
        weights[parameter(name)] = dequantized(gather.input[0], used.input[1], used.input[2])

# What was left in float32 has kept its name: biases, norms, the slopes of the snakes.
for name, numbers in stored.items():
    if re.fullmatch(r"[\w.]+\.(bias|gamma|beta|LayerNorm\.weight|\w+_layer_norm\.weight|alpha\d\.\d)", name):
        weights[parameter(name)] = numbers

save_file({name: np.ascontiguousarray(numbers, np.float32) for name, numbers in weights.items()}, sys.argv[2])
