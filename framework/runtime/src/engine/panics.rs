//! What is printed of handlers that panic: the first one as the program prints panics, some more as a
//! line each, and then none.
//!
//! A handler that panics parks its key, and the reason is kept with the key; a thousand of them are
//! nothing that a thousand backtraces would tell better, and each of those takes longer than many
//! thousand calls.
//!
//! Invariant: panics of anything but handlers are left to the hook that was there before.

use std::{
    cell::RefCell,
    panic::PanicHookInfo,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use statefn_core::watch::Watch;

/// How many panics of handlers are told, in the life of a process.
const TOLD_MAX: u64 = 20;

thread_local! {
    /// Shows whether this thread calls a handler.
    static WATCH: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

/// Says that this thread calls handlers, and where it shows that it does.
pub(super) fn note_thread(watch: &Arc<Watch>) {
    WATCH.set(Some(Arc::clone(watch)));
}

/// Sets the hook, once in the life of a process.
pub(super) fn set_hook() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = std::panic::take_hook();
        let told = AtomicU64::new(0);
        std::panic::set_hook(Box::new(move |info| {
            let number = if is_of_handler() { told.fetch_add(1, Ordering::Relaxed) } else { 0 };
            if number == 0 { before(info) } else { tell(number, info) }
        }));
    });
}

fn is_of_handler() -> bool {
    WATCH.with_borrow(|watch| watch.as_ref().is_some_and(|watch| watch.seen().is_some()))
}

fn tell(number: u64, info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let text = info.payload_as_str().unwrap_or_default();
    match number + 1 {
        number if number < TOLD_MAX => tracing::warn!("a handler panicked at {place}, its key is parked: {text}"),
        TOLD_MAX => tracing::warn!("more handlers panic, the last one at {place}; `parked` lists their keys"),
        _ => tracing::debug!("a handler panicked at {place}, its key is parked: {text}"),
    }
}
