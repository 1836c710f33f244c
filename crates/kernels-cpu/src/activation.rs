//! Gated activations of a transformer's MLP.
