//! The search for inputs that Postgres refuses: which of them to try together next.
//!
//! Pure; what trying means is [`super::steps`]'s.

use std::ops::Range;

/// Inputs that are to be tried, by their places.
#[derive(Debug)]
pub(super) struct Search {
    /// The next ones are the last of these.
    todo: Vec<Range<usize>>,
    /// One of these is at fault: they were refused, and what stood before them was not.
    guilty: Option<Range<usize>>,
    /// Where the step ends that is being cut.
    end: usize,
}

impl Search {
    /// Cuts inputs into steps of this weight, of one sort each. `inputs`: the sort of each, and its weight.
    pub(super) fn new<K: PartialEq>(inputs: impl Iterator<Item = (K, usize)>, step: usize) -> Self {
        let (mut todo, mut start, mut end, mut weight) = (Vec::new(), 0, 0, 0);
        let mut last = None;
        for (sort, more) in inputs {
            if end > start && (weight + more > step || last.is_some_and(|last| last != sort)) {
                todo.push(start..end);
                (start, weight) = (end, 0);
            }
            (end, weight, last) = (end + 1, weight + more, Some(sort));
        }
        if start < end {
            todo.push(start..end);
        }
        todo.reverse();
        Self { todo, guilty: None, end: 0 }
    }

    /// The inputs to be tried next.
    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let range = self.todo.pop()?;
            if range.len() > 1 && self.guilty.as_ref() == Some(&range) {
                self.cut(&range, None);
            } else {
                return Some(range);
            }
        }
    }

    /// They were applied.
    pub(super) fn passed(&mut self, range: &Range<usize>) {
        let begun = self.guilty.take().filter(|guilty| guilty.start == range.start);
        self.guilty = begun.map(|guilty| range.end..guilty.end).filter(|rest| !rest.is_empty());
    }

    /// They were refused; `suspect` is most likely at fault. True when it is the one, and through.
    pub(super) fn refused(&mut self, range: Range<usize>, suspect: Option<usize>) -> bool {
        if range.len() == 1 {
            self.guilty = None;
            // What is left of its step has met nobody else at fault, and goes as one again.
            self.todo.retain(|rest| rest.start >= self.end);
            self.todo.extend((range.end < self.end).then_some(range.end..self.end));
            return true;
        }
        if self.guilty.is_none() {
            self.end = range.end;
        }
        self.cut(&range, suspect);
        self.guilty = Some(range);
        false
    }

    fn cut(&mut self, range: &Range<usize>, suspect: Option<usize>) {
        let half = range.start + range.len() / 2;
        match suspect {
            Some(at) => self.todo.extend([at + 1..range.end, at..at + 1, range.start..at]),
            None => self.todo.extend([half..range.end, range.start..half]),
        }
        self.todo.retain(|range| !range.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries all; returns the culprits found, how many tries it took, and how many inputs were tried.
    fn run(inputs: usize, step: usize, culprits: &[usize], suspects: bool) -> (Vec<usize>, usize, usize) {
        let mut search = Search::new((0..inputs).map(|_| ((), 1)), step);
        let (mut found, mut applied, mut tries, mut tried) = (Vec::new(), 0, 0, 0);
        while let Some(range) = search.next() {
            assert_eq!(range.start, applied, "in order, none left out");
            (tries, tried) = (tries + 1, tried + range.len());
            match range.clone().find(|at| culprits.contains(at)) {
                None => search.passed(&range),
                Some(culprit) => {
                    if !search.refused(range.clone(), suspects.then_some(culprit)) {
                        continue;
                    }
                    found.push(culprit);
                }
            }
            applied = range.end;
        }
        assert_eq!(applied, inputs);
        (found, tries, tried)
    }

    #[test]
    fn every_culprit_is_found_in_order_and_nothing_else() {
        for suspects in [false, true] {
            for culprits in [vec![], vec![0], vec![499], vec![7, 8, 300], vec![0, 1, 2, 3], vec![99, 100, 250, 499]] {
                assert_eq!(run(500, 100, &culprits, suspects).0, culprits);
            }
            assert_eq!(run(1, 100, &[0], suspects).0, [0]);
            assert_eq!(run(0, 100, &[], suspects), (vec![], 0, 0));
        }
    }

    #[test]
    fn a_culprit_costs_its_step_again_or_twice() {
        assert_eq!(run(500, 100, &[], false), (vec![], 5, 500));
        for culprit in [0, 123, 250, 499] {
            let (_, tries, tried) = run(500, 100, &[culprit], false);
            assert!(tries <= 5 + 14 && tried <= 500 + 200, "{culprit}: {tries} tries of {tried}");
            let (_, tries, tried) = run(500, 100, &[culprit], true);
            assert!(tries <= 5 + 3 && tried <= 500 + 100, "{culprit}: {tries} tries of {tried}");
        }
        let tries: usize = (0..500).map(|culprit| run(500, 100, &[culprit], false).1).sum();
        assert!(tries <= 500 * (5 + 9), "{tries}: what is left of a step goes as one");
    }

    #[test]
    fn steps_have_a_weight_and_are_of_one_sort() {
        fn steps(inputs: &[(char, usize)]) -> Vec<Range<usize>> {
            let mut search = Search::new(inputs.iter().copied(), 3);
            std::iter::from_fn(|| search.next()).collect()
        }
        assert_eq!(steps(&[]), []);
        assert_eq!(steps(&[('a', 1), ('a', 0), ('a', 2), ('a', 0), ('a', 1)]), [0..4, 4..5]);
        assert_eq!(steps(&[('a', 1), ('b', 0), ('b', 1), ('a', 1)]), [0..1, 1..3, 3..4]);
        assert_eq!(steps(&[('a', 9), ('a', 1), ('a', 9)]), [0..1, 1..2, 2..3]);
    }

    /// It need not be deterministic: what was refused among others may pass alone.
    #[test]
    fn a_step_that_was_refused_may_pass_in_parts() {
        let mut search = Search::new((0..4).map(|_| ((), 1)), 4);
        let first = search.next().unwrap();
        assert!(!search.refused(first, None));
        let mut passed = Vec::new();
        while let Some(range) = search.next() {
            search.passed(&range);
            passed.push(range);
        }
        assert_eq!(passed, [0..2, 2..3, 3..4]);
    }
}
