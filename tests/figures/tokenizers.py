SETTINGS = ["rounded to 8 bits"]
