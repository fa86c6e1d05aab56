//! The process itself, under the names that every Prometheus client uses. Read from `/proc`, so on Linux only.

use std::fs;

use chrono::{DateTime, Utc};

use super::families::{Families, number};

/// Ticks of `/proc/self/stat` in a second; Linux shows user space this number on every architecture.
const TICKS: f64 = 100.0;

pub(super) fn add(families: &mut Families, started_at: DateTime<Utc>) {
    let mut gauge = |name, help, value: Option<f64>| {
        families.gauge(name, help, value.map(|value| (Vec::new(), value)));
    };
    gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970",
        Some(started_at.timestamp_millis() as f64 / 1_000.0),
    );
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name| status_number(&status, name).map(|kib| kib * 1024.0);
    gauge(
        "process_resident_memory_bytes",
        "Memory in use",
        kib("VmRSS:"),
    );
    gauge(
        "process_virtual_memory_bytes",
        "Address space in use",
        kib("VmSize:"),
    );
    gauge(
        "process_threads",
        "Threads",
        status_number(&status, "Threads:"),
    );
    let open = fs::read_dir("/proc/self/fd").ok();
    gauge(
        "process_open_fds",
        "Open files and connections",
        open.map(|folder| number(folder.count())),
    );
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    gauge(
        "process_max_fds",
        "Files and connections that may be open",
        limit(&limits, "Max open files"),
    );
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    families.seconds(
        "process_cpu_seconds_total",
        "User and system time",
        cpu_seconds(&stat),
    );
}

fn status_number(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit of a line of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 123 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(status_number("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
    }
}
