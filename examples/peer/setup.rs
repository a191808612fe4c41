//! How connections are made.

use capnp_threads::{Limits, Threads, Vat};

#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) threads: Threads,
}

impl Setup {
    pub(crate) fn vat(&self) -> Vat {
        Vat::new().limits(self.limits.clone()).threads(self.threads)
    }
}
