//! The arrows between crates (docs/architecture.md): who may know whom.

use anyhow::{Result, bail};

use super::workspace::Workspace;

/// Each crate of the workspace and the ones of ours that it may name in its `[dependencies]`. Tests may name more.
const ALLOWED: &[(&str, &[&str])] = &[
    // Control plane: compiles and is tested without MLX.
    ("vllm-platform", &[]),
    ("vllm-checkpoint", &[]),
    ("vllm-cache", &["vllm-platform"]),
    ("vllm-text", &["vllm-platform", "vllm-checkpoint"]),
    ("vllm-scheduler", &["vllm-platform", "vllm-cache", "vllm-speech"]),
    ("vllm-parsers", &[]),
    ("vllm-grammar", &["vllm-platform", "vllm-text", "vllm-parsers"]),
    ("vllm-mcp", &[]),
    ("vllm-grpc-proto", &[]),
    ("vllm-media", &["vllm-platform", "vllm-checkpoint"]),
    ("vllm-audio", &[]),
    ("vllm-speech", &["vllm-platform", "vllm-checkpoint", "vllm-text"]),
    ("vllm-dist", &["vllm-platform"]),
    // Data plane: where tensors live.
    ("mlx-sys", &[]),
    ("vllm-kernels-cpu", &[]),
    ("vllm-platform-mlx", &["vllm-platform", "vllm-checkpoint", "vllm-kernels-cpu", "mlx-sys"]),
    ("vllm-models-llm", &["vllm-platform", "vllm-checkpoint", "vllm-platform-mlx"]),
    ("vllm-models-embed", &["vllm-platform-mlx"]),
    ("vllm-models-vlm", &["vllm-platform-mlx"]),
    ("vllm-models-audio", &["vllm-platform", "vllm-platform-mlx"]),
    // What composes them.
    (
        BINARY,
        &[
            "vllm-platform",
            "vllm-checkpoint",
            "vllm-cache",
            "vllm-text",
            "vllm-scheduler",
            "vllm-parsers",
            "vllm-grammar",
            "vllm-mcp",
            "vllm-grpc-proto",
            "vllm-media",
            "vllm-audio",
            "vllm-speech",
            "vllm-dist",
            "vllm-platform-mlx",
            "vllm-models-llm",
            "vllm-models-embed",
            "vllm-models-vlm",
            "vllm-models-audio",
            // Its build script wants to know where libmlx is.
            "mlx-sys",
        ],
    ),
    ("vllm-tests", &[]),
    ("xtask", &[]),
];

/// The one crate that names model families.
const BINARY: &str = "vllm-api";

/// Crates that must not reach MLX, through whatever crate.
const CONTROL_PLANE: &[&str] = &[
    "vllm-platform",
    "vllm-checkpoint",
    "vllm-cache",
    "vllm-text",
    "vllm-scheduler",
    "vllm-parsers",
    "vllm-grammar",
    "vllm-mcp",
    "vllm-grpc-proto",
    "vllm-media",
    "vllm-audio",
    "vllm-speech",
    "vllm-dist",
];

const MLX: &[&str] = &["mlx-sys", "mlx-rs"];

pub fn check(workspace: &Workspace) -> Result<()> {
    let faults = faults(workspace);
    if !faults.is_empty() {
        bail!("{}\nThe table of allowed arrows is in xtask/src/ci/layers.rs", faults.join("\n"));
    }
    Ok(())
}

fn faults(workspace: &Workspace) -> Vec<String> {
    let mut faults = vec![];
    let is_ours = |name: &str| workspace.packages.get(name).is_some_and(|package| package.member);
    for (name, package) in workspace.packages.iter().filter(|(_, package)| package.member) {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            faults.push(format!("{name} has no line in the table of allowed arrows"));
            continue;
        };
        for need in package.needs.iter().filter(|need| is_ours(need)) {
            if !allowed.contains(&need.as_str()) {
                faults.push(format!("{name} depends on {need}, which it must not know"));
            }
            if need.starts_with("vllm-models-") && name != BINARY {
                faults.push(format!("{name} names the model family {need}; only {BINARY} may"));
            }
        }
        if CONTROL_PLANE.contains(&name.as_str()) {
            let reached = workspace.reach(name);
            for mlx in MLX.iter().filter(|mlx| reached.contains(*mlx)) {
                faults.push(format!("{name} belongs to the control plane and reaches {mlx}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::workspace::Package;

    /// A name, whether it is ours, and what it needs.
    type Drawn = (&'static str, bool, &'static [&'static str]);

    fn workspace(packages: &[Drawn]) -> Workspace {
        let packages = packages.iter().map(|(name, member, needs)| {
            let needs = needs.iter().map(|&need| need.to_owned()).collect();
            ((*name).to_owned(), Package { member: *member, licence: None, needs })
        });
        Workspace { packages: packages.collect() }
    }

    #[test]
    fn arrows_that_point_the_wrong_way_are_faults() {
        let cases: [(&str, &[Drawn], &[&str]); 6] = [
            (
                "as drawn",
                &[
                    ("vllm-platform", true, &["serde"]),
                    ("vllm-scheduler", true, &["vllm-platform"]),
                    ("vllm-platform-mlx", true, &["vllm-platform", "mlx-rs"]),
                    ("mlx-rs", false, &["mlx-sys"]),
                    ("mlx-sys", true, &[]),
                    ("serde", false, &[]),
                ],
                &[],
            ),
            (
                "upwards",
                &[("vllm-platform", true, &["vllm-scheduler"]), ("vllm-scheduler", true, &[])],
                &["vllm-platform depends on vllm-scheduler, which it must not know"],
            ),
            (
                "control plane on MLX, by a stranger",
                &[("vllm-text", true, &["helper"]), ("helper", false, &["mlx-rs"]), ("mlx-rs", false, &[])],
                &["vllm-text belongs to the control plane and reaches mlx-rs"],
            ),
            (
                "a model family named from below",
                &[("vllm-platform-mlx", true, &["vllm-models-llm"]), ("vllm-models-llm", true, &[])],
                &[
                    "vllm-platform-mlx depends on vllm-models-llm, which it must not know",
                    "vllm-platform-mlx names the model family vllm-models-llm; only vllm-api may",
                ],
            ),
            (
                "a model family named by the binary",
                &[("vllm-api", true, &["vllm-models-llm"]), ("vllm-models-llm", true, &[])],
                &[],
            ),
            (
                "a crate that nobody drew",
                &[("vllm-new", true, &[])],
                &["vllm-new has no line in the table of allowed arrows"],
            ),
        ];
        for (name, packages, wanted) in cases {
            assert_eq!(faults(&workspace(packages)), wanted, "{name}");
        }
    }
}
