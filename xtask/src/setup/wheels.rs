//! The official MLX wheels, pinned.

use anyhow::{Result, bail};

use crate::wheel::Wheel;

/// The version that mlx-c 0.7.0 was written for.
pub const MLX_VERSION: &str = "0.32.2";

/// The wheels that make up an MLX of a kind (`cpu`, `cuda13`, `metal`) on a system, its own first.
pub fn find(kind: &str, os: &str, arch: &str, macos: u32) -> Result<Vec<Wheel>> {
    let own = OFFICIAL.iter().find(|entry| {
        entry.kind == kind
            && entry.os == os
            && entry.arch == arch
            && (entry.macos.is_empty() || entry.macos.contains(&macos))
    });
    let Some(own) = own else {
        let known: Vec<String> =
            OFFICIAL.iter().map(|entry| format!("{} on {} {}", entry.kind, entry.os, entry.arch)).collect();
        bail!(
            "there is no official MLX {MLX_VERSION} of kind {kind} for {os} {arch}{}. There is: {}. Or use an installed MLX: \
             cargo xtask setup --mlx /prefix",
            if os == "macos" { format!(" (macOS {macos})") } else { String::new() },
            known.join(", ")
        );
    };
    let mut wheels = vec![own.wheel];
    if kind == "cuda13" {
        if arch != "x86_64" {
            bail!(
                "NVIDIA's libraries are pinned for x86_64 only; on {arch} use an installed MLX: cargo xtask setup --mlx /prefix"
            );
        }
        wheels.extend(NVIDIA);
    }
    Ok(wheels)
}

struct Official {
    kind: &'static str,
    os: &'static str,
    arch: &'static str,
    /// Major versions of macOS; empty elsewhere.
    macos: &'static [u32],
    wheel: Wheel,
}

const fn mlx(package: &'static str, platform: &'static str, bytes: u64, sha256: &'static str) -> Wheel {
    Wheel { package, version: MLX_VERSION, platform, bytes, sha256 }
}

const OFFICIAL: [Official; 6] = [
    Official {
        kind: "cpu",
        os: "linux",
        arch: "x86_64",
        macos: &[],
        wheel: mlx(
            "mlx-cpu",
            "manylinux_2_35_x86_64",
            10_388_414,
            "fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878",
        ),
    },
    Official {
        kind: "cpu",
        os: "linux",
        arch: "aarch64",
        macos: &[],
        wheel: mlx(
            "mlx-cpu",
            "manylinux_2_35_aarch64",
            8_822_016,
            "d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b",
        ),
    },
    Official {
        kind: "cuda13",
        os: "linux",
        arch: "x86_64",
        macos: &[],
        wheel: mlx(
            "mlx-cuda-13",
            "manylinux_2_35_x86_64",
            87_424_146,
            "335094ccd1c0c6dc3e09c8caba207c8180602bacc0c38ba20c1d81e9456ab394",
        ),
    },
    Official {
        kind: "metal",
        os: "macos",
        arch: "aarch64",
        macos: &[14],
        wheel: mlx(
            "mlx-metal",
            "macosx_14_0_arm64",
            42_516_623,
            "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8",
        ),
    },
    Official {
        kind: "metal",
        os: "macos",
        arch: "aarch64",
        macos: &[15],
        wheel: mlx(
            "mlx-metal",
            "macosx_15_0_arm64",
            42_512_323,
            "55a369250d220b2cf10213a87a2ac1b1a420608c5b35b1df4e7147ac8e32f121",
        ),
    },
    Official {
        kind: "metal",
        os: "macos",
        arch: "aarch64",
        macos: &[26, 27],
        wheel: mlx(
            "mlx-metal",
            "macosx_26_0_arm64",
            64_367_860,
            "e6abeac9ac5265830c9c1541b6f96e9be37a85c2446763a46ad466c63a3837ab",
        ),
    },
];

const fn nvidia(package: &'static str, version: &'static str, platform: &'static str, sha256: &'static str) -> Wheel {
    Wheel { package, version, platform, bytes: 0, sha256 }
}

/// What mlx-cuda-13 asks for, and what that asks for. The driver's own libcuda.so comes with the driver.
const NVIDIA: [Wheel; 7] = [
    nvidia(
        "nvidia-cublas",
        "13.10.0.20",
        "manylinux_2_5_x86_64",
        "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
    ),
    nvidia(
        "nvidia-cuda-nvrtc",
        "13.5.37",
        "manylinux_2_12_x86_64",
        "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
    ),
    nvidia(
        "nvidia-cuda-runtime",
        "13.5.37",
        "manylinux_2_17_x86_64",
        "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
    ),
    nvidia(
        "nvidia-cudnn-cu13",
        "9.28.0.42",
        "manylinux_2_27_x86_64",
        "7358353c75bb121a58e5f7712fe6d588883dc1df8ba00f428237e44e97543c4d",
    ),
    nvidia(
        "nvidia-cufft",
        "12.5.0.14",
        "manylinux_2_17_x86_64",
        "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad",
    ),
    nvidia(
        "nvidia-nccl-cu13",
        "2.32.3",
        "manylinux_2_27_x86_64",
        "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3",
    ),
    nvidia(
        "nvidia-nvjitlink",
        "13.5.37",
        "manylinux_2_12_x86_64",
        "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_system_has_its_wheel() {
        let cases = [
            ("cpu", "linux", "x86_64", 0, Some(("mlx-cpu", "manylinux_2_35_x86_64", 1))),
            ("cpu", "linux", "aarch64", 0, Some(("mlx-cpu", "manylinux_2_35_aarch64", 1))),
            ("cuda13", "linux", "x86_64", 0, Some(("mlx-cuda-13", "manylinux_2_35_x86_64", 8))),
            ("metal", "macos", "aarch64", 14, Some(("mlx-metal", "macosx_14_0_arm64", 1))),
            ("metal", "macos", "aarch64", 15, Some(("mlx-metal", "macosx_15_0_arm64", 1))),
            ("metal", "macos", "aarch64", 26, Some(("mlx-metal", "macosx_26_0_arm64", 1))),
            ("metal", "macos", "aarch64", 13, None),
            ("metal", "linux", "x86_64", 0, None),
            ("metal", "macos", "x86_64", 14, None),
            ("cpu", "windows", "x86_64", 0, None),
        ];
        for (kind, os, arch, macos, wanted) in cases {
            let found = find(kind, os, arch, macos).ok().map(|list| (list[0].package, list[0].platform, list.len()));
            assert_eq!(found, wanted, "{kind} {os} {arch} {macos}");
        }
    }

    #[test]
    fn hashes_are_hashes() {
        for wheel in OFFICIAL.iter().map(|entry| &entry.wheel).chain(&NVIDIA) {
            assert!(
                wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|b| b.is_ascii_hexdigit()),
                "{}",
                wheel.package
            );
        }
    }
}
