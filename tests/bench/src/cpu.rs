//! Who used the processors, as the kernel counts it: where the time of a call goes.

use std::{array, collections::BTreeMap, fs, process};

use anyhow::{Context as _, Result, ensure};

use crate::house::House;

/// Those who take part.
pub(crate) const WHO: [&str; 5] = ["load", "payment", "product", "PostgreSQL", "RabbitMQ"];
/// Milliseconds in a tick of `/proc/PID/stat` (USER_HZ).
const TICK_MS: u64 = 10;

/// What each of [`WHO`] has used so far, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Used([u64; WHO.len()]);

impl Used {
    /// Of all processes there are now. Servers are known by their name: beside the private ones none should be busy.
    pub(crate) fn now(house: &House) -> Result<Used> {
        let ids = [process::id(), house.payment.id(), house.product.id()];
        let mut used = [0; WHO.len()];
        for entry in fs::read_dir("/proc")? {
            let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
                continue; // No process, or it has ended.
            };
            let (id, name, ticks) = read(&stat).context("/proc/PID/stat is not as it should be")?;
            let who = match name {
                "postgres" => Some(3),
                "beam.smp" => Some(4),
                _ => ids.iter().position(|known| *known == id),
            };
            if let Some(who) = who {
                used[who] += ticks * TICK_MS;
            }
        }
        Ok(Used(used))
    }

    /// What each has used since, for each of so many calls, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn each_since(self, before: Used, calls: u64) -> [f64; WHO.len()] {
        array::from_fn(|who| self.0[who].saturating_sub(before.0[who]) as f64 / calls.max(1) as f64)
    }
}

/// What each thread of a process has used so far, in nanoseconds, by its id. Ticks are too coarse for part of a second of
/// few calls.
pub(crate) struct Threads(BTreeMap<String, u64>);

impl Threads {
    pub(crate) fn of(id: u32) -> Result<Threads> {
        let path = format!("/proc/{id}/task");
        let tasks = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        let mut used = BTreeMap::new();
        for task in tasks {
            let task = task?;
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else {
                continue; // It has ended.
            };
            let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
            let ns = ns.with_context(|| format!("{path}: {stat:?} is no schedstat"))?;
            used.insert(task.file_name().to_string_lossy().into_owned(), ns);
        }
        ensure!(!used.is_empty(), "this kernel has no {path}/*/schedstat");
        Ok(Threads(used))
    }

    /// What all of them have used since, in nanoseconds, but for those that have ended.
    pub(crate) fn since(&self, before: &Threads) -> u64 {
        let each = self.0.iter().map(|(id, used)| {
            let before = before.0.get(id).copied().unwrap_or(0);
            used.saturating_sub(before)
        });
        each.sum()
    }
}

/// Id, name, and ticks in user and kernel mode, with those of children that have ended: a server's processes come and go, and
/// what one of them has used must not go with it. See proc(5).
fn read(stat: &str) -> Option<(u32, &str, u64)> {
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let ticks = rest.split(' ').skip(11).take(4).map(str::parse::<u64>);
    let ticks = ticks.collect::<Result<Vec<_>, _>>().ok()?;
    (ticks.len() == 4).then_some((id.parse().ok()?, name, ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Barrier,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_process_is_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 70 5 8 1 20 0 3 0 1 1 1";
        assert_eq!(read(stat), Some((42, "a (b) c", 84)));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(read(&own).unwrap().0, process::id());
    }

    #[test]
    fn what_a_process_has_used_stays_when_it_ends() {
        let ticks = || {
            read(&fs::read_to_string("/proc/self/stat").unwrap())
                .unwrap()
                .2
        };
        let before = ticks();
        let mut spinning = process::Command::new("timeout");
        let spinning = spinning.args(["0.3", "sh", "-c", "while :; do :; done"]);
        assert!(!spinning.status().unwrap().success());
        let used = ticks() - before;
        assert!(used >= 5, "{used}");
    }

    #[test]
    fn threads_are_counted_finer_than_ticks_and_newer_ones_from_their_start() {
        let before = Threads::of(process::id()).unwrap();
        let (begun, go_on) = (Barrier::new(2), Barrier::new(2));
        let used = thread::scope(|scope| {
            scope.spawn(|| {
                let started = Instant::now();
                while started.elapsed() < Duration::from_millis(3) {}
                begun.wait();
                go_on.wait();
            });
            begun.wait();
            let used = Threads::of(process::id()).unwrap().since(&before);
            go_on.wait();
            used
        });
        assert!(used > 0, "{used}");
        assert_ne!(used % (TICK_MS * 1_000_000), 0, "{used}");
    }
}
