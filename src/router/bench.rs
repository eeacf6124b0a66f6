//! What benches measure alone that no caller can ask for alone.

use super::Router;
use super::paths::spf::Paths;

impl Router {
    /// Runs SPF over the records that are held, changes nothing, and returns how
    /// many nodes are reached. For benches: [`table`](Self::table) has the paths.
    #[doc(hidden)]
    #[must_use]
    pub fn search_paths(&self) -> usize {
        let graph = self.database.graph();
        let Some(source) = graph.number(self.id()) else { return 0 };
        let usable = |from, to| from != source || self.uses_link(graph.id(to));
        let paths = Paths::find(graph, source, usable);
        paths.ways().iter().filter(|way| way.cost != Paths::UNREACHABLE).count()
    }
}
