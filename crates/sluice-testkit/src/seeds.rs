//! Which random worlds a run looks at.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// The seeds of one test in one run. Each run has others, unless `SLUICE_SEED` says which is the first one;
/// `SLUICE_WORLDS` says how many.
#[derive(Clone, Debug)]
pub struct Seeds {
    seeds: Range<u64>,
    /// Is the number of worlds the test's own, or larger?
    whole: bool,
}

impl Seeds {
    /// The seeds of this run: `worlds` of them, unless the environment says otherwise.
    pub fn of_run(worlds: u64) -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        Self::new(worlds, number("SLUICE_SEED"), number("SLUICE_WORLDS"))
    }

    fn new(own: u64, first: Option<u64>, worlds: Option<u64>) -> Self {
        // Nanoseconds, so that two runs of one second, or two tests, look at different worlds; shortened to be typed.
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let first = first.unwrap_or_else(|| now() / 1_000 % 1_000_000_000_000);
        let worlds = worlds.unwrap_or(own);
        Seeds { seeds: first..first.saturating_add(worlds), whole: worlds >= own }
    }

    /// Did the run look at enough worlds for every kind of answer to occur?
    pub fn are_many(&self) -> bool {
        self.whole
    }

    /// How a world is looked at again; for the message of a failure.
    pub fn replay(seed: u64) -> String {
        format!("SLUICE_SEED={seed} SLUICE_WORLDS=1")
    }

    /// Says how much was compared, in the form that `cargo xtask soak` adds up.
    pub fn report(&self, compared: usize) {
        let worlds = self.seeds.end - self.seeds.start;
        println!("compared={compared} SLUICE_SEED={} SLUICE_WORLDS={worlds}", self.seeds.start);
    }
}

impl IntoIterator for &Seeds {
    type Item = u64;
    type IntoIter = Range<u64>;

    fn into_iter(self) -> Range<u64> {
        self.seeds.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_those_that_are_asked_for() {
        let seeds = Seeds::new(100, Some(7), Some(3));
        assert_eq!((&seeds).into_iter().collect::<Vec<_>>(), [7, 8, 9]);
        assert!(!seeds.are_many());
        let seeds = Seeds::new(2, Some(7), None);
        assert_eq!((&seeds).into_iter().collect::<Vec<_>>(), [7, 8]);
        assert!(seeds.are_many());
    }

    #[test]
    fn every_run_has_others() {
        let first = Seeds::new(1, None, None);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = Seeds::new(1, None, None);
        assert!((&first).into_iter().all(|seed| !second.seeds.contains(&seed)));
    }
}
