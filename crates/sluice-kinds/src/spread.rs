//! Work on many items, spread over the processors.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Items that a thread takes at once: few enough that all end together, many enough that taking them costs nothing.
const BATCH: usize = 16;

/// Does `work` to every item; the results are in the order of the items. Few items are done where the caller stands.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len() / BATCH);
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let run = || {
        let mut done = Vec::new();
        loop {
            let batch: Vec<(usize, T)> =
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return done;
            }
            done.extend(batch.into_iter().map(|(index, item)| (index, work(item))));
        }
    };
    let mut results = Vec::with_capacity(count);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        results.extend(run());
        for other in others {
            match other.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_the_order_of_the_items() {
        for count in [0, 1, 15, 33, 1_000] {
            let results = super::map((0..count).collect(), |n: usize| n * 2);
            assert_eq!(results, (0..count).map(|n| n * 2).collect::<Vec<_>>());
        }
    }
}
