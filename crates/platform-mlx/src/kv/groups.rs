//! Layers by how far back they read.

use crate::model::LayerSpec;

/// Layers that share block tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGroup {
    /// Their window; `None`: they read everything.
    pub window: Option<usize>,
    /// Their indices, first to last.
    pub layers: Vec<usize>,
}

/// Groups of layers of one window each: the layers that read everything come first, then windows, the longest first.
///
/// A window that no sequence of `max_len` tokens outgrows is none.
#[must_use]
pub fn group_layers(layers: &[LayerSpec], max_len: usize) -> Vec<LayerGroup> {
    let effective = |layer: &LayerSpec| layer.window.filter(|&window| window < max_len);
    let mut windows: Vec<_> = layers.iter().map(effective).collect();
    windows.sort_unstable_by_key(|window| std::cmp::Reverse(window.unwrap_or(usize::MAX)));
    windows.dedup();
    let members = |window| (0..layers.len()).filter(|&layer| effective(&layers[layer]) == window).collect();
    windows.into_iter().map(|window| LayerGroup { window, layers: members(window) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_is_a_group() {
        let layer = |window| LayerSpec { kv_heads: 1, head_dim: 16, window };
        let layers = [Some(64), None, Some(64), Some(512), Some(4096)].map(layer);
        let found: Vec<_> = group_layers(&layers, 4096).into_iter().map(|group| (group.window, group.layers)).collect();
        assert_eq!(found, [(None, vec![1, 4]), (Some(512), vec![3]), (Some(64), vec![0, 2])]);
        let found: Vec<_> = group_layers(&layers[..1], 4096).into_iter().map(|group| group.window).collect();
        assert_eq!(found, [Some(64)]);
    }
}
