//! How much memory is there for us? A pipeline's limit where nobody sets one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::byte_size::ByteSize;

/// What a pipeline takes where there is enough.
const USUAL: u64 = 128 << 20;
/// What it takes at least: a batch by default settings.
const LEAST: u64 = 16 << 20;
/// This part of what the control group allows; the rest is the process's own and its destination's.
const PART: u64 = 4;

/// 128 MiB, or a quarter of what the control group of the process allows where that is less; at least 16 MiB.
pub(crate) fn usual_limit() -> ByteSize {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(allowed(&groups, Path::new("/sys/fs/cgroup")))
}

fn limit_of(allowed: Option<u64>) -> ByteSize {
    ByteSize(allowed.map_or(USUAL, |allowed| (allowed / PART).clamp(LEAST, USUAL)))
}

/// The least that a group of the process, or one around it, allows (cgroups(7)). `None` where none says anything.
fn allowed(groups: &str, mount: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| allowed_by(line, mount)).min()
}

/// What one line of `/proc/self/cgroup` leads to: `0::/path` of version 2, `4:memory:/path` of version 1.
fn allowed_by(line: &str, mount: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (mount, file) = if controllers.is_empty() {
        (mount.to_owned(), "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (mount.join("memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    // In a container the path may be the host's, and the group's files at the mount itself.
    let group: PathBuf = mount.join(path.trim_start_matches('/'));
    let around = group.ancestors().take_while(|group| group.starts_with(&mount));
    around.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_the_control_group_allows_within_bounds() {
        let mib = |allowed: Option<u64>| limit_of(allowed.map(|mib| mib << 20)).0 >> 20;
        assert_eq!([None, Some(4096), Some(512)].map(mib), [128, 128, 128]);
        assert_eq!([Some(256), Some(100), Some(32), Some(0)].map(mib), [64, 25, 16, 16]);
    }

    #[test]
    fn the_least_of_the_groups_around_the_process_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |group: &str, file: &str, text: &str| {
            fs::create_dir_all(dir.path().join(group)).unwrap();
            fs::write(dir.path().join(group).join(file), text).unwrap();
        };
        let found = |groups: &str| allowed(groups, dir.path());
        assert_eq!(found("0::/a/b\n"), None, "no file");
        write("a/b", "memory.max", "max\n");
        assert_eq!(found("0::/a/b\n"), None, "no limit");
        write("a", "memory.max", "2000\n");
        write("a/b", "memory.max", "3000\n");
        assert_eq!(found("0::/a/b\n"), Some(2000));
        assert_eq!(found("0::/a/b/that/is/not/here\n"), Some(2000));
        write("memory/c", "memory.limit_in_bytes", "1000\n");
        assert_eq!(found("5:cpu:/c\n4:pids,memory:/c\n0::/\n"), Some(1000));
        assert_eq!(found("nonsense\n:\n"), None);
    }
}
