//! Sets of points of a bounded line, as intervals. Addresses of one family and ports are such lines.

/// A point of a bounded, discrete line.
pub(crate) trait Point: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    /// The next point, unless this is the last one.
    fn next(self) -> Option<Self>;
    /// The point before, unless this is the first one.
    fn previous(self) -> Option<Self>;
}

macro_rules! point {
    ($($int:ty),*) => {$(
        impl Point for $int {
            const MIN: Self = <$int>::MIN;
            const MAX: Self = <$int>::MAX;
            fn next(self) -> Option<Self> { self.checked_add(1) }
            fn previous(self) -> Option<Self> { self.checked_sub(1) }
        }
    )*};
}
point!(u16, u32, u128);

/// Sorted, disjoint, non-touching inclusive intervals: equal sets are equal values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Intervals<T>(Vec<(T, T)>);

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Point> Intervals<T> {
    pub(crate) fn all() -> Self {
        Self(vec![(T::MIN, T::MAX)])
    }

    /// From inclusive intervals in any order; they may overlap. An interval whose end is before its start is empty.
    pub(crate) fn from_intervals(mut intervals: Vec<(T, T)>) -> Self {
        intervals.retain(|(first, last)| first <= last);
        intervals.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(end) if end.1.next().is_none_or(|next| first <= next) => end.1 = end.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub(crate) fn as_slice(&self) -> &[(T, T)] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0.as_slice() == [(T::MIN, T::MAX)]
    }

    pub(crate) fn contains(&self, point: T) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= point);
        after > 0 && point <= self.0[after - 1].1
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        all.extend_from_slice(&self.0);
        all.extend_from_slice(&other.0);
        Self::from_intervals(all)
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.as_slice(), other.0.as_slice());
        let mut both = Vec::new();
        while let (Some(&(l_first, l_last)), Some(&(r_first, r_last))) = (left.first(), right.first()) {
            let (first, last) = (l_first.max(r_first), l_last.min(r_last));
            if first <= last {
                both.push((first, last));
            }
            if l_last <= r_last {
                left = &left[1..];
            } else {
                right = &right[1..];
            }
        }
        Self(both)
    }

    pub(crate) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut start = Some(T::MIN);
        for &(first, last) in &self.0 {
            if let (Some(start), Some(end)) = (start, first.previous())
                && start <= end
            {
                gaps.push((start, end));
            }
            start = last.next();
        }
        if let Some(start) = start {
            gaps.push((start, T::MAX));
        }
        Self(gaps)
    }

    pub(crate) fn subtract(&self, other: &Self) -> Self {
        self.intersect(&other.complement())
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0.as_slice(), other.0.as_slice());
        while let (Some(l), Some(r)) = (left.first(), right.first()) {
            if l.0.max(r.0) <= l.1.min(r.1) {
                return true;
            }
            if l.1 <= r.1 {
                left = &left[1..];
            } else {
                right = &right[1..];
            }
        }
        false
    }
}
