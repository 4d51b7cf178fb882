//! Who used the processors, as the kernel counts it: where the time of a call goes.

use std::{array, fs, process};

use anyhow::{Context as _, Result};

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

/// What a process has used so far, in milliseconds.
pub(crate) fn used_ms(id: u32) -> Result<u64> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, _, ticks) = read(&stat).with_context(|| format!("{path} is not as it should be"))?;
    Ok(ticks * TICK_MS)
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
        let before = used_ms(process::id()).unwrap();
        let mut spinning = process::Command::new("timeout");
        let spinning = spinning.args(["0.3", "sh", "-c", "while :; do :; done"]);
        assert!(!spinning.status().unwrap().success());
        let used = used_ms(process::id()).unwrap() - before;
        assert!(used >= 5 * TICK_MS, "{used}");
    }
}
