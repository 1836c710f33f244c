//! RMS norm and layer norm over rows.
