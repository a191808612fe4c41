//! Under a model checker each task has a thread, which is started for it: see `on_demand.rs`.

/// Something for a thread to do.
pub(super) trait Work: Sized {
    /// Does it. May wait.
    fn run(self);

    /// Does what can be done without waiting. What is given back is to be tried again.
    #[allow(dead_code)]
    fn advance(self) -> Option<Self>;
}
