"""Every team's method, one file each: `teams/<track>/<team>.py`."""

if __name__ == "teams":  # imported by its name of 0.1, at the top of a checkout: see `ntire._OldNames`
    import ntire as ntire

    __path__ = []
