//! How many calls the server takes at a time: a limit that follows what it can bear, pure (time and
//! samples are arguments).
//!
//! A gradient in the way of Netflix's concurrency-limits (`Gradient2Limit`, "Performance Under Load",
//! 2018) and of Envoy's adaptive concurrency: once in a window the limit is multiplied by
//! `tolerance x baseline / latency` (between a half and 1) and may grow by a little. Three things are
//! different, each because of a way in which the originals fail:
//!
//! - The baseline is kept per method, and what counts is the mean ratio to it. One number for all of them
//!   takes a change of the mix for a change of the load.
//! - The baseline is learned only while the limit is not used up to a half. Gradient2's long average
//!   follows the queue that the limit itself allows, so in a long overload the limit drifts upwards for
//!   ever; TCP Vegas (Brakmo and Peterson 1995) keeps the least latency ever seen, which with RPCs is a
//!   lucky one, so its limit drifts down to nothing.
//! - Where calls feel the limit, the baseline is measured: now and then the limit is cut to a quarter until
//!   some calls that began below it have ended (BBR's ProbeRTT, Envoy's minRTT window, which cuts to 3).
//! - A latency that does not fall with the limit is not made by a queue. Where the limit has come down to
//!   a quarter and the latency has not come down to two fifths, it is the new baseline, and the limit returns
//!   to what it was: no error in a baseline can wear the limit down.
//!
//! Vegas was not taken: it holds a queue of a fixed number of calls, which asks for a baseline far more
//! exact than RPCs have. With a tolerance of 150 % the workers stay busy even when the baseline is a
//! third too low.

use crate::{
    client::clock::{Nanos, float, millis, whole},
    server::overload::OverloadConfig,
};

/// How long samples are collected before the limit is reconsidered, at least; and not less than one mean
/// latency, before which no change of the limit shows.
const WINDOW: Nanos = millis(100);
/// And how many.
const SAMPLES_MIN: u32 = 20;
/// A window that does not fill is closed after so many times its length.
const WINDOWS_MAX: u64 = 10;
/// One sample counts at most for so many times its baseline: a single slow call is not an overload.
const RATIO_MAX: f64 = 8.0;
/// Below this ratio there is no queue at all, and the limit grows by a quarter.
const RATIO_FREE: f64 = 1.1;
const GROWTH_FREE: f64 = 0.25;
/// The gradient never cuts by more at a time.
const GRADIENT_MIN: f64 = 0.5;
/// How much of a new limit counts beside the old one.
const SMOOTHING: f64 = 0.5;
/// How much of a window's mean counts beside an old baseline.
const BASELINE_SMOOTHING: f64 = 0.1;
/// The same in so many windows under load from the first one on, whose calls that have ended are the short ones.
const BASELINE_YOUNG: f64 = 0.5;
const YOUNG_WINDOWS: u32 = 5;
/// The same where the ratio is below this, so that the baseline is proven to be too high.
const RATIO_PROOF: f64 = 0.75;
const BASELINE_FALL: f64 = 0.3;
/// The baseline is measured only where calls already feel the limit: where so much of it is used, and the
/// ratio is above this. A server that is merely busy is left alone.
const PRESSED_PART: f64 = 0.75;
const PRESSED_RATIO: f64 = 1.25;
/// What is left of the limit while the baseline is measured.
const PROBE_PART: f64 = 0.25;
/// How many calls are measured then: four for each place, between these. Fixed before their latencies are
/// known, for the first to end are always the short ones.
const PROBE_CALLS: std::ops::RangeInclusive<u64> = 20..=40;
/// A tenth of them is not waited for; it counts with the time that it has taken so far.
const PROBE_LEFT: usize = 10;
/// How soon the baseline is measured again after a measurement that has changed it, and how late at most
/// after some that have not.
const PROBE_PAUSE_MIN: Nanos = millis(1_000);
const PROBE_PAUSE_MAX: Nanos = millis(30_000);
/// A measurement takes at most one part in so many of the time; the first number while the baseline changes.
const PROBE_SHARES: (u64, u64) = (8, 30);
/// One that comes to no end in so many mean latencies, and in this time at least, is given up: all calls
/// fail, or none does.
const PROBE_LATENCIES_MAX: f64 = 50.0;
const PROBE_LONGEST: Nanos = millis(5_000);
/// A measurement that differs by more has changed the baseline.
const PROBE_CHANGE: f64 = 0.5;
/// A latency that is left of a larger one when the limit is cut to a quarter: below it there was a queue.
const QUEUE_PART: f64 = 0.4;

/// How a call was over, for the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// Answered after its full time.
    Served,
    /// Ended by its caller or its deadline: it would have taken longer.
    Abandoned,
    /// Says nothing of the load: a stream, or an error.
    Unmeasured,
}

/// The adaptive limit of one server.
#[derive(Debug)]
pub(crate) struct Limit {
    places: f64,
    /// The highest limit since the baseline was last measured.
    peak: f64,
    /// The highest mean ratio since then.
    peak_ratio: f64,
    /// The mean ratio of the last window under load.
    last_ratio: f64,
    /// By the number of the method.
    methods: Vec<Method>,
    young_windows: u32,
    window: Window,
    probe: Option<Probe>,
    probe_at: Nanos,
    probe_pause: Nanos,
    /// Of the last window, in nanoseconds; 0: not known.
    latency_mean: f64,
}

#[derive(Clone, Debug, Default)]
struct Method {
    /// The latency without a queue, in nanoseconds; 0: not known.
    baseline: f64,
    samples: u32,
    latencies: f64,
}

#[derive(Debug, Default)]
struct Window {
    began: Nanos,
    samples: u32,
    latencies: f64,
    /// Samples whose baseline is known.
    known: u32,
    ratios: f64,
    /// The same, no sample cut off.
    ratios_whole: f64,
    in_flight_max: usize,
}

/// The baseline is being measured.
#[derive(Debug)]
struct Probe {
    began: Nanos,
    limit: f64,
    /// Whether what was begun above the probe's limit has left.
    drained: bool,
    /// The calls that are measured, and how many are to be.
    calls: Vec<Measured>,
    calls_max: usize,
    ended: usize,
}

#[derive(Debug)]
struct Measured {
    method: usize,
    began: Nanos,
    ended: bool,
}

impl Limit {
    /// For `methods` methods, numbered from 0.
    pub(crate) fn new(methods: usize, config: &OverloadConfig) -> Self {
        let limit = float(config.limit_initial as u64);
        Self {
            places: limit,
            peak: limit,
            peak_ratio: 0.0,
            last_ratio: 0.0,
            methods: vec![Method::default(); methods],
            young_windows: 0,
            window: Window::default(),
            probe: None,
            probe_at: 0,
            probe_pause: PROBE_PAUSE_MIN,
            latency_mean: 0.0,
        }
    }

    /// How many calls may be in flight.
    pub(crate) fn current(&self) -> f64 {
        match &self.probe {
            Some(probe) => probe.limit.min(self.places),
            None => self.places,
        }
    }

    /// The mean latency of the last window, in nanoseconds; 0: not known.
    pub(crate) fn latency_mean(&self) -> f64 {
        self.latency_mean
    }

    /// A call of the method begins, as one of so many in flight.
    pub(crate) fn begin(&mut self, now: Nanos, method: usize, in_flight: usize) {
        self.window.in_flight_max = self.window.in_flight_max.max(in_flight);
        if let Some(probe) = &mut self.probe
            && probe.drained
            && probe.calls.len() < probe.calls_max
        {
            probe.calls.push(Measured {
                method,
                began: now,
                ended: false,
            });
        }
    }

    /// A call of the method that began then is over, and `in_flight` are left.
    pub(crate) fn end(
        &mut self,
        now: Nanos,
        method: usize,
        began: Nanos,
        departure: Departure,
        in_flight: usize,
        config: &OverloadConfig,
    ) {
        let latency = float(now.saturating_sub(began));
        let counts = match departure {
            Departure::Served => true,
            Departure::Abandoned => {
                let baseline = self.methods[method].baseline;
                baseline > 0.0 && latency > baseline
            }
            Departure::Unmeasured => false,
        };
        if self.probe.is_some() {
            return self.probed(now, method, began, counts, in_flight);
        }
        if counts && now >= self.window.began {
            self.add(method, latency);
        }
        let length = WINDOW.max(whole(self.latency_mean));
        let age = now.saturating_sub(self.window.began);
        let full = age >= length && self.window.samples >= SAMPLES_MIN;
        if full || (age >= length * WINDOWS_MAX && self.window.samples > 0) {
            self.reconsider(now, config);
            self.open_window(now, in_flight);
        }
    }

    fn add(&mut self, method: usize, latency: f64) {
        let method = &mut self.methods[method];
        method.samples += 1;
        method.latencies += latency;
        self.window.samples += 1;
        self.window.latencies += latency;
        if method.baseline > 0.0 {
            self.window.known += 1;
            let ratio = latency / method.baseline;
            self.window.ratios += ratio.min(RATIO_MAX);
            self.window.ratios_whole += ratio;
        }
    }

    fn open_window(&mut self, now: Nanos, in_flight: usize) {
        if self.window.samples > 0 {
            self.latency_mean = self.window.latencies / f64::from(self.window.samples);
        }
        self.window = Window {
            began: now,
            in_flight_max: in_flight,
            ..Window::default()
        };
        for method in &mut self.methods {
            method.forget();
        }
    }

    fn reconsider(&mut self, now: Nanos, config: &OverloadConfig) {
        let (min, max) = (
            float(config.limit_min as u64),
            float(config.limit_max as u64),
        );
        self.places = self.places.clamp(min, max); // The configuration may have changed.
        if float(self.window.in_flight_max as u64) < self.places / 2.0 {
            // Nothing to learn of the limit, and nothing in the way of learning the baseline.
            self.learn(BASELINE_SMOOTHING);
            return;
        }
        let known = f64::from(self.window.known);
        self.last_ratio = self.window.ratios_whole / known.max(1.0);
        if self.window.known == 0 || self.young_windows < YOUNG_WINDOWS {
            // For want of anything better; what is too high comes down below.
            self.young_windows += 1;
            self.learn(BASELINE_YOUNG);
            return;
        }
        let ratio = self.window.ratios / known;
        if ratio < RATIO_PROOF {
            self.learn(BASELINE_FALL); // With a queue or without: it cannot be slower than that.
        }
        let pressed = float(self.window.in_flight_max as u64) >= self.places * PRESSED_PART;
        if pressed && ratio > PRESSED_RATIO && now >= self.probe_at {
            return self.begin_probe(now);
        }
        let tolerance = f64::from(config.tolerance_percent) / 100.0;
        let gradient = (tolerance / ratio).clamp(GRADIENT_MIN, 1.0);
        let growth = if ratio < RATIO_FREE {
            self.places * GROWTH_FREE
        } else {
            (self.places.sqrt() / 2.0).max(1.0)
        };
        let wanted = self.places * gradient + growth;
        self.places = (self.places * (1.0 - SMOOTHING) + wanted * SMOOTHING).clamp(min, max);
        if self.places >= self.peak {
            (self.peak, self.peak_ratio) = (self.places, 0.0);
        }
        self.peak_ratio = self.peak_ratio.max(self.last_ratio);
        if self.places <= self.peak * PROBE_PART {
            if self.last_ratio > self.peak_ratio * QUEUE_PART {
                self.learn(1.0);
                self.places = self.peak;
            }
            (self.peak, self.peak_ratio) = (self.places, 0.0);
        }
    }

    fn learn(&mut self, weight: f64) {
        for method in &mut self.methods {
            method.learn(weight);
        }
    }

    fn begin_probe(&mut self, now: Nanos) {
        self.window = Window::default();
        for method in &mut self.methods {
            method.forget();
        }
        let limit = (self.places * PROBE_PART).max(1.0);
        let calls = (whole(limit) * 4).clamp(*PROBE_CALLS.start(), *PROBE_CALLS.end());
        self.probe = Some(Probe {
            began: now,
            limit,
            drained: false,
            calls: Vec::new(),
            calls_max: usize::try_from(calls).unwrap_or(usize::MAX),
            ended: 0,
        });
    }

    /// A call is over while the baseline is measured.
    fn probed(&mut self, now: Nanos, method: usize, began: Nanos, counts: bool, in_flight: usize) {
        let Some(probe) = &mut self.probe else { return };
        let longest = PROBE_LONGEST.max(whole(self.latency_mean * PROBE_LATENCIES_MAX));
        if now.saturating_sub(probe.began) > longest {
            self.probe = None;
            self.probe_at = now + PROBE_PAUSE_MAX;
            return self.open_window(now, in_flight);
        }
        if !probe.drained {
            probe.drained = float(in_flight as u64) <= probe.limit;
            return;
        }
        let is_this = |call: &Measured| !call.ended && (call.method, call.began) == (method, began);
        let Some(index) = probe.calls.iter().position(is_this) else {
            return;
        };
        if counts {
            probe.calls[index].ended = true;
            probe.ended += 1;
        } else {
            probe.calls.swap_remove(index); // Another one is measured in its place.
        }
        let (ended, wanted) = (probe.ended, probe.calls_max - probe.calls_max / PROBE_LEFT);
        if counts {
            self.add(method, float(now.saturating_sub(began)));
        }
        if ended >= wanted {
            self.end_probe(now);
            self.open_window(now, in_flight);
            // Of the many calls that begin now, the first to end are the short ones.
            self.window.began += 2 * whole(self.latency_mean);
        }
    }

    fn end_probe(&mut self, now: Nanos) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        for call in probe.calls.iter().filter(|call| !call.ended) {
            self.add(call.method, float(now.saturating_sub(call.began)));
        }
        let ratio = self.window.ratios_whole / f64::from(self.window.known.max(1));
        // Where the latency fell with the limit there was a queue, and there may be one still.
        let queued = self.window.known > 0 && ratio <= self.last_ratio * QUEUE_PART;
        let changed = !(1.0 - PROBE_CHANGE..=1.0 + PROBE_CHANGE).contains(&ratio);
        // A small difference may be chance.
        let weight = if changed { 1.0 } else { BASELINE_YOUNG };
        for method in &mut self.methods {
            if !queued || method.is_faster() {
                method.learn(weight);
            }
        }
        let took = now.saturating_sub(probe.began);
        let share = if changed || queued {
            self.probe_pause = PROBE_PAUSE_MIN;
            PROBE_SHARES.0
        } else {
            self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX);
            PROBE_SHARES.1
        };
        self.probe_at = now + self.probe_pause.max(took * share);
        if !queued && ratio > 1.0 + PROBE_CHANGE {
            self.places = self.peak; // It was lowered for a queue that was none.
        }
        (self.peak, self.peak_ratio) = (self.places, 0.0);
    }
}

impl Method {
    fn forget(&mut self) {
        self.samples = 0;
        self.latencies = 0.0;
    }

    /// Than it was known to be.
    fn is_faster(&self) -> bool {
        self.baseline == 0.0 || self.latencies < self.baseline * f64::from(self.samples)
    }

    /// Moves the baseline towards the window's mean; the first one is taken as it is.
    fn learn(&mut self, weight: f64) {
        if self.samples == 0 {
            return;
        }
        let mean = self.latencies / f64::from(self.samples);
        let certain = (f64::from(self.samples) / f64::from(SAMPLES_MIN)).min(1.0);
        self.baseline = if self.baseline == 0.0 {
            mean
        } else {
            self.baseline + (mean - self.baseline) * weight * certain
        };
    }
}
