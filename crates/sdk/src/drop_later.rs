//! Clients whose end takes longer than anybody should wait.
//!
//! `rdkafka` closes a consumer, and joins the thread of an administrator, in steps of 100 ms, waiting for events that do
//! not come. Nothing depends on the end of a client that only asked questions, so it ends on a thread of its own.

use std::ops::Deref;

/// A value that is dropped on a thread of its own.
pub(crate) struct DropLater<T: Send + 'static> {
    value: Option<T>,
}

impl<T: Send + 'static> DropLater<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value) }
    }
}

impl<T: Send + 'static> Deref for DropLater<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until dropped")
    }
}

impl<T: Send + 'static> Drop for DropLater<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        // Without a thread the closure, and the value with it, is dropped here.
        let _ = std::thread::Builder::new().name("close client".into()).spawn(move || drop(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_dropped_elsewhere() {
        struct Tell(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.send(std::thread::current().id()).unwrap();
            }
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(DropLater::new(Tell(sender)));
        assert_ne!(receiver.recv().unwrap(), std::thread::current().id());
    }
}
