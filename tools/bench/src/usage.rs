//! CPU seconds and memory of the stack's processes, by group, from /proc.
//!
//! Postgres' group is the server with all its children: the time of backends that ended counts as its parent's waited-for
//! children. Linux only, like the rest of the stack.

use std::collections::BTreeMap;
use std::fs;

/// `USER_HZ`: clock ticks per second as /proc shows them; 100 on every Linux of x86 and Arm.
const TICKS_PER_SECOND: f64 = 100.0;
const MIB: f64 = 1024.0;
/// The group of this process.
const SELF: &str = "bench";

/// Seconds of CPU since the processes began, by group.
pub(crate) type Cpu = BTreeMap<String, f64>;

/// The fields of /proc/PID/stat that matter, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own: u64,
    children: u64,
}

/// `order-svc-1` and `order-svc` are one group; `up` is not part of the system.
fn groups(processes: &BTreeMap<String, u32>) -> BTreeMap<String, Vec<u32>> {
    let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (name, pid) in processes.iter().filter(|(name, _)| *name != "up") {
        let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        let group = stem.strip_suffix('-').unwrap_or(name);
        groups.entry(group.to_owned()).or_default().push(*pid);
    }
    groups.insert(SELF.to_owned(), vec![std::process::id()]);
    groups
}

/// CPU seconds of each group until now.
pub(crate) fn cpu(processes: &BTreeMap<String, u32>) -> Cpu {
    let family = family();
    let ticks = |pid: &u32| {
        let Some(stat) = stat(*pid) else {
            return 0;
        };
        let children = family.get(pid).map(Vec::as_slice).unwrap_or_default();
        let living: u64 =
            children.iter().filter_map(|child| self::stat(*child)).map(|child| child.own + child.children).sum();
        stat.own + stat.children + living
    };
    let seconds = |pids: Vec<u32>| {
        #[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^52")]
        let ticks = pids.iter().map(ticks).sum::<u64>() as f64;
        ticks / TICKS_PER_SECOND
    };
    groups(processes).into_iter().map(|(group, pids)| (group, seconds(pids))).collect()
}

/// Resident MiB of each group now. Memory that a group's processes share counts once.
pub(crate) fn rss_mb(processes: &BTreeMap<String, u32>) -> BTreeMap<String, f64> {
    let family = family();
    let megabytes = |pids: Vec<u32>| {
        let children = pids.iter().filter_map(|pid| family.get(pid)).flatten();
        let all: Vec<(u64, u64)> = pids.iter().chain(children).filter_map(|pid| resident_kib(*pid)).collect();
        let own: u64 = all.iter().map(|(own, _)| own).sum();
        let shared = all.iter().map(|(_, shared)| *shared).max().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "KiB of memory are far below 2^52")]
        let kib = (own + shared) as f64;
        kib / MIB
    };
    groups(processes).into_iter().map(|(group, pids)| (group, megabytes(pids))).collect()
}

/// Children by parent, of all processes.
fn family() -> BTreeMap<u32, Vec<u32>> {
    let mut family: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return family;
    };
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = stat(pid) {
            family.entry(stat.parent).or_default().push(pid);
        }
    }
    family
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may hold blanks and parentheses; what follows the last one is numbers.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // proc(5): ppid is field 4, utime 14, stime 15, cutime 16, cstime 17; the third one is the first here.
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Stat { parent, own: number(11)? + number(12)?, children: number(13)? + number(14)? })
}

/// Own and shared resident KiB.
fn resident_kib(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("RssAnon")?, field("RssFile")? + field("RssShmem")?))
}

/// What was used between two readings, per thousand orders.
pub(crate) fn per_1000(before: &Cpu, after: &Cpu, orders: usize) -> Cpu {
    #[expect(clippy::cast_precision_loss, reason = "orders are far below 2^52")]
    let thousands = orders.max(1) as f64 / 1_000.0;
    let used = |(group, after): (&String, &f64)| {
        let before = before.get(group).copied().unwrap_or(0.0);
        (group.clone(), (after - before).max(0.0) / thousands)
    };
    after.iter().map(used).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_passed_over() {
        let text = "7 (a) b (c)) S 3 7 7 0 -1 0 1 2 3 4 100 20 5 6 20 0 1 0 9 0 0";
        assert_eq!(parse_stat(text), Some(Stat { parent: 3, own: 120, children: 11 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn instances_of_a_service_are_one_group() {
        let processes: BTreeMap<String, u32> = [("order-svc", 1), ("order-svc-1", 2), ("kafka", 3), ("up", 4)]
            .map(|(name, pid)| (name.to_owned(), pid))
            .into();
        let groups = groups(&processes);
        assert_eq!(groups["order-svc"], [1, 2]);
        assert_eq!(groups["kafka"], [3]);
        assert!(!groups.contains_key("up"));
        assert!(groups.contains_key(SELF));
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let none = BTreeMap::new();
        let before = cpu(&none);
        let mut sum = 0_u64;
        while cpu(&none)[SELF] - before[SELF] < 0.02 {
            sum = (0..1_000_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(per_1000(&before, &cpu(&none), 500)[SELF] >= 0.04, "{sum}");
        assert!(rss_mb(&none)[SELF] > 1.0);
    }
}
