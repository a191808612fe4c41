//! What is measured of a part, and where.

use std::time::{Duration, Instant};

use crate::allocations;

/// How many operations are run before any is measured.
const WARM_UP: u64 = 640;

/// A part of the whole that is measured by itself.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// How many operations one run is.
    pub(crate) operations: u32,
    /// Whether its instructions are counted: it runs on one thread, so that it takes the same ones each time, and is soon made.
    pub(crate) counted: bool,
    pub(crate) make: fn() -> Run,
}

/// Runs a part once.
pub(crate) type Run = Box<dyn FnMut(&mut Meter)>;

impl Part {
    /// A part of one operation, on one thread.
    pub(crate) const fn new(name: &'static str, make: fn() -> Run) -> Self {
        Part { name, operations: 1, counted: true, make }
    }

    pub(crate) const fn operations(self, operations: u32) -> Self {
        Part { operations, ..self }
    }

    pub(crate) const fn uncounted(self) -> Self {
        Part { counted: false, ..self }
    }

    /// Makes it, and runs so many operations that queues and tables have the memory they need.
    pub(crate) fn warmed_up(&self) -> Run {
        let mut run = (self.make)();
        self.runs(&mut run, WARM_UP, &mut Meter { counts: false, ..Meter::default() });
        run
    }

    /// Runs until at least so many operations have been measured. Gives what one took.
    pub(crate) fn run(&self, run: &mut Run, operations: u64) -> (Duration, f64) {
        let mut meter = Meter { counts: true, ..Meter::default() };
        let measured = self.runs(run, operations, &mut meter);
        (meter.elapsed.div_f64(measured), meter.allocations as f64 / measured)
    }

    fn runs(&self, run: &mut Run, operations: u64, meter: &mut Meter) -> f64 {
        let runs = operations.div_ceil(self.operations.into());
        (0..runs).for_each(|_| run(meter));
        (runs * u64::from(self.operations)) as f64
    }
}

/// Measures what a part is about, and not what prepares it.
#[derive(Default)]
pub(crate) struct Meter {
    counts: bool,
    elapsed: Duration,
    allocations: u64,
}

impl Meter {
    pub(crate) fn measure<R>(&mut self, part: impl FnOnce() -> R) -> R {
        if !self.counts {
            return part();
        }
        let allocated = allocations::so_far();
        let since = Instant::now();
        let result = counted_by_callgrind(part);
        self.elapsed += since.elapsed();
        self.allocations += allocations::so_far() - allocated;
        result
    }
}

/// `benches/instructions/check` has callgrind count inside this function.
#[inline(never)]
fn counted_by_callgrind<R>(part: impl FnOnce() -> R) -> R {
    part()
}
