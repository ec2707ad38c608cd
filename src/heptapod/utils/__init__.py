"""What every part needs: settings, files, random streams, pictures, progress."""
