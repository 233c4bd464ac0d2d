"""graphc"""
