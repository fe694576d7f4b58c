//! Numbers without order, the same in every run: uniform, and as Zipf has them.

/// Number `number` of a fixed sequence without order (SplitMix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Picks one of `count` by Zipf's law, by the method of Gray et al. (SIGMOD 1994), which YCSB has.
#[derive(Debug)]
pub(crate) struct Zipf {
    count: f64,
    theta: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// `theta` is the skew, from 0 (uniform) to below 1.
    pub(crate) fn new(count: u64, theta: f64) -> Self {
        let zeta = |upto: u64| (1..=upto).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let all = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / all);
        Self { count: count as f64, theta, zeta: all, eta }
    }

    /// The rank that a random number picks, from 0, the most frequent one.
    pub(crate) fn rank(&self, random: u64) -> u64 {
        let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = part * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.count * (self.eta * part - self.eta + 1.0).powf(1.0 / (1.0 - self.theta));
        (rank as u64).min(self.count as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_as_frequent_as_zipf_says() {
        const COUNT: u64 = 1_000;
        const DRAWS: u64 = 200_000;
        for theta in [0.0, 0.5, 0.99] {
            let zipf = Zipf::new(COUNT, theta);
            let mut frequency = vec![0_u64; COUNT as usize];
            (0..DRAWS).for_each(|number| frequency[zipf.rank(mixed(number)) as usize] += 1);
            let expected = DRAWS as f64 / zipf.zeta;
            let found = frequency[0] as f64;
            assert!((found - expected).abs() < expected.sqrt() * 5.0, "{theta}: {found} instead of {expected}");
            assert!(frequency[900..].iter().sum::<u64>() > 0, "{theta}: the last ranks are never drawn");
        }
    }
}
