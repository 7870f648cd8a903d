//! Random bytes as decisions. Where they end, every decision is the first, simplest one.

/// Decisions drawn from bytes.
pub(crate) struct Choices<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Choices { bytes, at: 0 }
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let mut number = 0;
        for _ in 0..if n > 256 { 2 } else { 1 } {
            number = number << 8 | usize::from(self.bytes.get(self.at).copied().unwrap_or_default());
            self.at += 1;
        }
        number % n.max(1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) + 1 == n
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One to `most` values.
    pub(crate) fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| draw(self)).collect()
    }

    /// None to `most` values.
    pub(crate) fn many<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| draw(self)).collect()
    }
}
