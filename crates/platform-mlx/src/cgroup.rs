//! What the control groups of this process let it have: the limits of a container or a service.

use std::{fs, path::Path};

/// Memory that control groups grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The tightest limit.
    pub limit: u64,
    /// The least that is left below a limit, once the kernel has dropped its caches of files.
    pub available: u64,
}

/// The memory that this process's control groups grant; `None` where there are none.
pub(crate) fn memory() -> Option<Grant> {
    tightest(|path| fs::read_to_string(path).ok())
}

/// Where a version of control groups keeps its figures.
struct Files {
    root: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Prefix of the keys in `memory.stat` that count groups below, too.
    prefix: &'static str,
}

const V1: Files = Files {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    prefix: "total_",
};
const V2: Files = Files { root: "/sys/fs/cgroup", limit: "memory.max", usage: "memory.current", prefix: "" };

/// The least of all groups from this process's own up to the root, which in a container is the container's.
fn tightest(read: impl Fn(&Path) -> Option<String>) -> Option<Grant> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    let mut tightest = None;
    for line in own.lines() {
        // 4:memory:/some/group, or 0::/some/group
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let files = match controllers {
            "" => V2,
            list if list.split(',').any(|controller| controller == "memory") => V1,
            _ => continue,
        };
        for group in Path::new(path).ancestors() {
            let folder = Path::new(files.root).join(group.strip_prefix("/").unwrap_or(group));
            if let Some(Grant { limit, available }) = grant(&files, &|name| read(&folder.join(name))) {
                let least = tightest.get_or_insert(Grant { limit, available });
                *least = Grant { limit: limit.min(least.limit), available: available.min(least.available) };
            }
        }
    }
    tightest
}

/// What one group grants; `None` if it has no limit.
fn grant(files: &Files, read: &impl Fn(&str) -> Option<String>) -> Option<Grant> {
    let number = |name| read(name)?.trim().parse::<u64>().ok();
    let limit = number(files.limit)?;
    let usage = number(files.usage)?;
    let stat = read("memory.stat").unwrap_or_default();
    let cached = |kind: &str| {
        let key = format!("{}{kind}_file ", files.prefix);
        stat.lines().find_map(|line| line.strip_prefix(&key)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let held = usage.saturating_sub(cached("inactive")).saturating_sub(cached("active"));
    Some(Grant { limit, available: limit.saturating_sub(held) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tightest_of(files: &[(&str, &str)]) -> Option<Grant> {
        tightest(|path| {
            let found = files.iter().find(|(name, _)| path == Path::new(name))?;
            Some(found.1.into())
        })
    }

    #[test]
    fn the_tightest_group_counts() {
        let service = [
            ("/proc/self/cgroup", "0::/system/vllm\n"),
            ("/sys/fs/cgroup/system/vllm/memory.max", "max\n"),
            ("/sys/fs/cgroup/system/memory.max", "9000\n"),
            ("/sys/fs/cgroup/system/memory.current", "5000\n"),
            ("/sys/fs/cgroup/system/memory.stat", "anon 1000\ninactive_file 1500\nactive_file 500\n"),
        ];
        assert_eq!(tightest_of(&service), Some(Grant { limit: 9000, available: 6000 }));
        // A container sees its own group at the root, under whatever name it has outside.
        let container = [
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "800\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "700\n"),
            ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 600\ntotal_inactive_file 50\ntotal_active_file 0\n"),
        ];
        assert_eq!(tightest_of(&container), Some(Grant { limit: 800, available: 150 }));
        let cases = [vec![], vec![("/proc/self/cgroup", "0::/\n")], vec![("/proc/self/cgroup", "nonsense")]];
        cases.iter().for_each(|files| assert_eq!(tightest_of(files), None));
    }
}
