//! What was measured, round by round, and what it is compared with.

use std::collections::BTreeMap;

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Figure {
    /// pgbench's own transaction.
    TpcB,
    /// CreatePayment's statement under pgbench.
    Own,
    /// CreatePayment.
    Create,
    /// CreatePayment that is carried out.
    Purchase,
    /// ReserveStock of one SKU.
    Reserve,
    /// pgbench's own read.
    SelectOnly,
    /// GetProduct.
    Get,
    /// A publisher that awaits its confirms.
    Bare,
    /// The relay of an outbox.
    Relay,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::TpcB => "TPC-B",
            Figure::Own => "its own statement",
            Figure::Create => "CreatePayment",
            Figure::Purchase => "whole purchase",
            Figure::Reserve => "ReserveStock, one hot SKU",
            Figure::SelectOnly => "select-only",
            Figure::Get => "GetProduct",
            Figure::Bare => "a bare confirmed publisher",
            Figure::Relay => "event relay",
        }
    }
}

/// At least so many times what it is compared with.
pub(crate) struct Target {
    pub(crate) figure: Figure,
    pub(crate) against: Figure,
    pub(crate) ratio: f64,
}

/// All of them.
pub(crate) const TARGETS: [Target; 6] = [
    target(Figure::Create, Figure::Own, 0.8),
    target(Figure::Create, Figure::TpcB, 0.6),
    target(Figure::Purchase, Figure::TpcB, 0.08),
    target(Figure::Reserve, Figure::TpcB, 1.5),
    target(Figure::Get, Figure::SelectOnly, 0.25),
    target(Figure::Relay, Figure::Bare, 0.8),
];

const fn target(figure: Figure, against: Figure, ratio: f64) -> Target {
    Target {
        figure,
        against,
        ratio,
    }
}

/// Rates a second by figure and clients, a value a round. What has no clients has 0.
#[derive(Default)]
pub(crate) struct Figures {
    rates: BTreeMap<(Figure, usize), Vec<f64>>,
    latencies_ms: BTreeMap<(Figure, usize), Vec<(f64, f64)>>,
}

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure, clients: usize, rate: f64) {
        self.rates.entry((figure, clients)).or_default().push(rate);
    }

    /// The latencies of a round: the median and the 99th percentile.
    pub(crate) fn add_latency(
        &mut self,
        figure: Figure,
        clients: usize,
        percentiles_ms: (f64, f64),
    ) {
        let rounds = self.latencies_ms.entry((figure, clients)).or_default();
        rounds.push(percentiles_ms);
    }

    pub(crate) fn rates(&self, figure: Figure, clients: usize) -> Option<Spread> {
        Spread::of(self.rates.get(&(figure, clients))?)
    }

    /// Median and 99th percentile, each the median of the rounds.
    pub(crate) fn latency_ms(&self, figure: Figure, clients: usize) -> Option<(f64, f64)> {
        let rounds = self.latencies_ms.get(&(figure, clients))?;
        let part = |part: fn(&(f64, f64)) -> f64| {
            Spread::of(&rounds.iter().map(part).collect::<Vec<_>>()).map(|spread| spread.median)
        };
        Some((part(|both| both.0)?, part(|both| both.1)?))
    }

    /// Of each round: what was measured in it by what it is compared with.
    pub(crate) fn ratio(&self, target: &Target, clients: usize) -> Option<Spread> {
        let figures = self.rates.get(&(target.figure, clients))?;
        let against = self.rates.get(&(target.against, clients))?;
        let ratios = figures
            .iter()
            .zip(against)
            .map(|(figure, against)| figure / against);
        Spread::of(&ratios.collect::<Vec<_>>())
    }

    /// How many clients there were, ascending.
    pub(crate) fn clients(&self, figure: Figure) -> Vec<usize> {
        let keys = self
            .rates
            .keys()
            .filter(|(measured, _)| *measured == figure);
        keys.map(|(_, clients)| *clients).collect()
    }
}

/// The median of several rounds, and the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => return None,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Spread {
            median,
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let mut figures = Figures::default();
        for (own, ours) in [(10.0, 9.0), (20.0, 10.0), (10.0, 8.0)] {
            figures.add(Figure::Own, 8, own);
            figures.add(Figure::Create, 8, ours);
        }
        let ratio = figures.ratio(&TARGETS[0], 8).unwrap();
        let expected = Spread {
            median: 0.8,
            least: 0.5,
            most: 0.9,
        };
        assert_eq!(ratio, expected);
        assert_eq!(figures.ratio(&TARGETS[0], 32), None);
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert!((Spread::of(&[1.0, 2.0]).unwrap().median - 1.5).abs() < 1e-9);
        assert_eq!(Spread::of(&[]), None);
    }
}
