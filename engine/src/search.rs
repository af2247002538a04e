//! The search for the item that Postgres refuses: halves what is suspected, with new transactions and no savepoints (DESIGN
//! §5), and commits what turns out to be good.
//!
//! Pure; a batch without failures is not searched.

/// How many of the next items are suspected: one of them is at fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Search(usize);

impl Search {
    pub(crate) fn is_on(self) -> bool {
        self.0 > 0
    }

    /// How many items the next batch takes, if it may take so many.
    pub(crate) fn limit(self, most: usize) -> usize {
        match self.0 {
            0 => most,
            suspected => (suspected / 2).clamp(1, most),
        }
    }

    /// A batch of so many was refused.
    pub(crate) fn refused(&mut self, count: usize) {
        self.0 = count;
    }

    /// A batch of so many committed.
    pub(crate) fn passed(&mut self, count: usize) {
        self.0 = self.0.saturating_sub(count);
    }

    /// The next item is the one.
    pub(crate) fn found(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes items until all are committed; returns the culprits found and the batches it took.
    fn run(items: usize, culprits: &[usize]) -> (Vec<usize>, usize) {
        let (mut search, mut next, mut found, mut batches) = (Search::default(), 0, Vec::new(), 0);
        while next < items {
            let count = search.limit(500).min(items - next);
            batches += 1;
            let bad = (next..next + count).any(|item| culprits.contains(&item) && !found.contains(&item));
            match (bad, count) {
                (true, 1) => {
                    search.found();
                    found.push(next);
                }
                (true, count) => search.refused(count),
                (false, count) => {
                    search.passed(count);
                    next += count;
                }
            }
        }
        (found, batches)
    }

    #[test]
    fn every_culprit_is_found_in_order_and_nothing_else() {
        for culprits in [vec![], vec![0], vec![499], vec![7, 8, 300], vec![0, 1, 2, 3], vec![250, 499]] {
            assert_eq!(run(500, &culprits).0, culprits);
        }
        assert_eq!(run(1, &[0]).0, [0]);
    }

    #[test]
    fn a_search_takes_about_as_many_batches_as_halvings() {
        assert_eq!(run(1_000, &[]).1, 2);
        for culprit in [0, 123, 499] {
            let (_, batches) = run(500, &[culprit]);
            assert!(batches <= 14, "{culprit}: {batches}");
        }
    }
}
