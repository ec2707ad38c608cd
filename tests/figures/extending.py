SETTINGS = [r"truncated normal, 0\.02"]
