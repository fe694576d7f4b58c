//! How often a process allocates; counted only in a build with the feature `count-allocations`.

use super::{
    Failure, figures,
    row::{self, Row, Side},
};

/// Whether this build counts.
pub(crate) const ARE_COUNTED: bool = cfg!(feature = "count-allocations");

/// The name of the figure.
pub(crate) const NAME: &str = "allocations";

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// How often the process has allocated, or made an allocation larger, since its start.
#[cfg(feature = "count-allocations")]
pub(crate) fn count() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

/// Not counted in this build.
#[cfg(not(feature = "count-allocations"))]
pub(crate) fn count() -> u64 {
    0
}

/// Prints the allocations of each further event: what twice the input takes more than the input.
pub(crate) fn compare<R: Row>(row: &R) -> Result<(), Failure> {
    for (name, point) in row.points() {
        for (side, title) in [(Side::App, "app"), (Side::ByHand, "by hand")] {
            let run = |point: &R| -> Result<f64, Failure> {
                point.prepare()?;
                let figures = row::child(point, side, row.measuring())?;
                figures.get(NAME).ok_or_else(|| "the run counted no allocations".into())
            };
            let (once, twice) = (run(&point)?, run(&point.times(2))?);
            let name = format!("{} {name} {title}: allocations/event", R::NAME);
            figures::print_one(&name, (twice - once) / point.events() as f64)?;
        }
    }
    Ok(())
}
