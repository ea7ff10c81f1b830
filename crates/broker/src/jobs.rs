//! What the broker does besides answering: each job in a task of its own, for as long as the broker lives.
//!
//! Owns the tasks. Invariants: no job ends by itself, so one that has ended is a bug, and is told; the end of one, by a
//! panic say, does not end the others. Does not know what a job does.

use std::future::Future;

use tokio::task::JoinHandle;

/// The jobs of one broker; dropping them ends them.
#[derive(Default)]
pub(crate) struct Jobs {
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Jobs {
    /// Starts a job under a name for the operator.
    pub(crate) fn start(&mut self, name: &'static str, job: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push((name, tokio::spawn(job)));
    }

    /// The name of a job that has ended, if there is one.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        self.tasks.iter().find(|(_, task)| task.is_finished()).map(|(name, _)| *name)
    }

    /// Ends all jobs and waits until they have ended.
    pub(crate) async fn end(&mut self) {
        self.abort();
        for (_, task) in &mut self.tasks {
            let _ = task.await;
        }
        self.tasks.clear();
    }

    fn abort(&self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.abort();
    }
}
