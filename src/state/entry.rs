//! The shape of an entry in the question and answer tables.

use crate::short::Short;

/// An entry of the question or of the answer table: which of the two messages that end it has come (or gone),
/// and what is to be done when the other does.
///
/// ```text
///                  Return                      Finish
///         .----------------> HaveReturn -----------------.
///  NewQA -|                                              |-> (gone, ID free)
///         '----------------> HaveFinish -----------------'
///                  Finish                      Return
/// ```
///
/// For a question the Return is received and the Finish is sent; for an answer it is the other way round. What
/// is to be done is data, so that it can be cloned with the table, looked at, and compared. When its message
/// comes, it moves into the callback queue, and is done there in a transaction of its own.
#[derive(Clone, Debug)]
pub(crate) enum Entry<R: Clone, F: Clone, OnReturn: Clone + Default, OnFinish: Clone> {
    NewQA { on_return: OnReturn, on_finish: Short<OnFinish> },
    HaveReturn { return_msg: R, on_finish: Short<OnFinish> },
    HaveFinish { finish_msg: F, on_return: OnReturn },
}

impl<R: Clone, F: Clone, OnReturn: Clone + Default, OnFinish: Clone> Entry<R, F, OnReturn, OnFinish> {
    pub(crate) fn new() -> Self {
        Entry::NewQA { on_return: OnReturn::default(), on_finish: Short::new() }
    }

    /// What is to be done on Return, while that has not come.
    pub(crate) fn on_return_mut(&mut self) -> Option<&mut OnReturn> {
        match self {
            Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } => Some(on_return),
            Entry::HaveReturn { .. } => None,
        }
    }

    /// What is to be done on Return, while that has not come.
    pub(crate) fn on_return(&self) -> Option<&OnReturn> {
        match self {
            Entry::NewQA { on_return, .. } | Entry::HaveFinish { on_return, .. } => Some(on_return),
            Entry::HaveReturn { .. } => None,
        }
    }

    pub(crate) fn has_returned(&self) -> bool {
        matches!(self, Entry::HaveReturn { .. })
    }

    pub(crate) fn has_finished(&self) -> bool {
        matches!(self, Entry::HaveFinish { .. })
    }

    /// Neither returned nor finished.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self, Entry::NewQA { .. })
    }

    /// The Return has come or gone, before the Finish: gives what is to be done. `None` from another state.
    pub(crate) fn mark_returned(&mut self, return_msg: R) -> Option<OnReturn> {
        let Entry::NewQA { on_return, on_finish } = self else { return None };
        let (on_return, on_finish) = (std::mem::take(on_return), std::mem::take(on_finish));
        *self = Entry::HaveReturn { return_msg, on_finish };
        Some(on_return)
    }

    /// The Finish has come or gone, before the Return: gives what was to be done on Return, and leaves nothing
    /// to be done. `None` from another state.
    pub(crate) fn mark_finished(&mut self, finish_msg: F) -> Option<OnReturn> {
        let Entry::NewQA { on_return, .. } = self else { return None };
        let on_return = std::mem::take(on_return);
        *self = Entry::HaveFinish { finish_msg, on_return: OnReturn::default() };
        Some(on_return)
    }
}
