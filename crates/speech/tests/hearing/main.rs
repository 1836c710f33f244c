//! What is done with a sound before and after a model, against what others make of the same: see `fixtures/make.py`.

mod fixtures;
mod long_form;
mod mel;
mod real;
mod subtitles;
mod vad;
