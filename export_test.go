package oncelog

// OpenStill is Open for tests outside of the package that look at what is on disk: nothing happens in the background.
func OpenStill(dir string, opts Options) (*Store, error) {
	opts.still = true
	return Open(dir, &opts)
}
