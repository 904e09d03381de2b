"""."""
def run(m,r):pass
